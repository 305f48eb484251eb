"""What a run would cost on this machine, stage by stage, before it is started.

Network calls are counted by running the stages' own code with a model that only counts. The time of a call, and of
decoding, labelling and judging, is measured for some seconds with the real networks.
"""

from boundaryflow.estimate.forecast import Forecast, StageCost, as_json, forecast

__all__ = ["Forecast", "StageCost", "as_json", "forecast"]
