"""A finding: what was seen, how bad it is, and how often the same is said of a model with nothing wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know about one layer."""

    layer: str
    """Name of the layer."""
    kind: str
    """Which rule found it; docs/findings.md has a section of this name."""
    severity: Severity
    """error: the file cannot work so; warning: likely wrong; info: good to know, often as meant."""
    text: str
    """The layer and what is wrong with it, as one line."""
    evidence: Mapping[str, Any]
    """The numbers behind it."""
    weight: float = 1.0
    """How far past the threshold, to rank findings of one severity."""

    def to_dict(self, rates: Mapping[str, Any]) -> dict[str, Any]:
        """The finding's object in the JSON, with the rates measured for its kind (see `calibration.rates`)."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "severity": self.severity,
            "text": f"{self.layer}: {self.text}",
            "evidence": dict(self.evidence),
            "page": f"docs/findings.md#{self.kind}",
            "false_positive_rate": rates.get(self.kind),
        }


def ranked(findings: list[Finding]) -> list[Finding]:
    """Errors first, then warnings, then infos; of one severity the farthest past its threshold first."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.weight))
