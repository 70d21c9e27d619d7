"""How much of the demo data's law the model has found: its figures as shares of those of the law itself."""

import json
import subprocess
import sys

from config import PROJECT_ROOT
from engine.runs import EVALUATION

METRICS = ("hr10", "ndcg10")
DEMO_MODELS = PROJECT_ROOT / ".local" / "demo" / "models"


def oracle_share() -> dict[str, float]:
    """Run the demo, which goes on from what is there, and compare the model with the oracle in its table."""
    subprocess.run([sys.executable, "cli.py", "demo"], cwd=PROJECT_ROOT, check=True, stdout=subprocess.DEVNULL)
    newest = max(DEMO_MODELS.glob(f"*/{EVALUATION}"))
    results = json.loads(newest.read_text(encoding="utf-8"))["results"]
    oracle = next(row for name, row in results.items() if name.startswith("oracle"))
    return {metric: results["BERT4Rec"][metric] / oracle[metric] for metric in METRICS}
