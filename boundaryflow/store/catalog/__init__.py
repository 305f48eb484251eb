"""Every folder of data/, defined once: which stage or job writes it, its paths, tables, schemas and units.

Each folder has its own module, so that a change makes only those stages stale that write or read that folder.
"""

from boundaryflow.store.catalog.boundary import BOUNDARY, METRICS
from boundaryflow.store.catalog.edit import EDIT
from boundaryflow.store.catalog.evaluate import EVALUATE
from boundaryflow.store.catalog.ingest import INGEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.jobs import AUGMENT, BULK_EDIT, TEXT
from boundaryflow.store.catalog.label import LABEL
from boundaryflow.store.catalog.listing import LISTING
from boundaryflow.store.catalog.mixing import MIXING
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.catalog.output import Output
from boundaryflow.store.catalog.params import PARAMS
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.store.catalog.report import REPORT
from boundaryflow.store.catalog.review import REVIEW
from boundaryflow.store.catalog.samples import SAMPLES

_STAGES = (
    PARAMS,
    LISTING,
    INGEST,
    LABEL,
    MIXING,
    INVERT,
    OBSERVE,
    BOUNDARY,
    METRICS,
    EDIT,
    SAMPLES,
    EVALUATE,
    REPORT,
)
_OTHERS = (BULK_EDIT, AUGMENT, TEXT, REVIEW, RAW)
CATALOG: dict[str, Output] = {output.name: output for output in (*_STAGES, *_OTHERS)}
"""Name of a folder of data/ to its entry; stages in the order in which they run."""
