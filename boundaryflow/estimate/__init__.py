"""What a run would cost on this machine, stage by stage, before it is started.

Network calls are counted by running the stages' own code on a model that only counts. What a call takes, and what
decoding, labelling and judging take, is measured for some seconds on the real ones.
"""

from boundaryflow.estimate.forecast import Forecast, StageCost, as_json, forecast

__all__ = ["Forecast", "StageCost", "as_json", "forecast"]
