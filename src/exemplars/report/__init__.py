"""Results as text for people and as JSON for programs.

Text that comes from documents, models and manifests is shown with its control characters made
visible, so that none of it can write to the terminal it is printed on. JSON is plain ASCII.
"""

from exemplars.report.dictionaries import (
    audit_text as audit_text,
)
from exemplars.report.dictionaries import (
    card as card,
)
from exemplars.report.dictionaries import (
    card_text as card_text,
)
from exemplars.report.dictionaries import (
    demo_text as demo_text,
)
from exemplars.report.dictionaries import (
    diagnosis_text as diagnosis_text,
)
from exemplars.report.dictionaries import (
    dictionaries_text as dictionaries_text,
)
from exemplars.report.dictionaries import (
    dictionary_summary as dictionary_summary,
)
from exemplars.report.dictionaries import (
    dictionary_text as dictionary_text,
)
from exemplars.report.dictionaries import (
    metrics_text as metrics_text,
)
from exemplars.report.dictionaries import (
    plan_text as plan_text,
)
from exemplars.report.dictionaries import (
    provenance as provenance,
)
from exemplars.report.dictionaries import (
    regions_text as regions_text,
)
from exemplars.report.dictionaries import (
    trace_text as trace_text,
)
from exemplars.report.text import (
    duration as duration,
)
from exemplars.report.text import (
    size as size,
)
from exemplars.report.text import (
    table as table,
)
from exemplars.report.text import (
    to_json as to_json,
)
from exemplars.report.text import (
    visible as visible,
)
