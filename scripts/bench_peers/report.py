"""The benchmark's tables, as Markdown, from its records."""

from typing import Any

Record = dict[str, Any]


def tables(records: list[Record]) -> str:
    """All tables: the ratios, then what each package reached."""
    return "\n".join([_ratios(records), "", _rates(records), "", _skipped(records)])


def _ratios(records: list[Record]) -> str:
    lines = [
        "Our evaluations per second over those of the fastest peer, median and 16-84 % over the rounds:",
        "",
        "| workload | PSF | task | batch | ratio | target | fastest peer | over any way of use |",
        "|---|---|---|---|---|---|---|---|",
    ]
    any_way = {r["variant"]: r for r in records if r["id"] == "ratio_any_way"}
    for r in (r for r in records if r["id"] == "ratio"):
        other = any_way.get(r["variant"])
        beside = "" if other is None or other["peer"] == r["peer"] else f"{_spread(other)}, {other['peer']}"
        target = "" if r["reach"] is None else f"{r['reach']:g}"
        lines.append(f"| {_case(r)} | {_spread(r)} | {target} | {r['peer']} | {beside} |")
    return "\n".join(lines)


def _rates(records: list[Record]) -> str:
    lines = [
        "Evaluations per second (every image of a batch counts), difference from ours in double precision:",
        "",
        "| workload | PSF | task | batch | package | evaluations/s | first call, s | memory an image, MB | difference "
        "| setting |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in (r for r in records if r["id"] == "rate"):
        memory = "" if r["memory_mb_per_image"] is None else f"{r['memory_mb_per_image']:.2f}"
        low, high = r["spread"]
        lines.append(
            f"| {_case(r)} | {r['package']} | {r['value']:.0f} ({low:.0f}-{high:.0f}) | {r['first_call_seconds']:.1f} "
            f"| {memory} | {r['difference']:.0e} | {r['setting']} |"
        )
    return "\n".join(lines)


def _skipped(records: list[Record]) -> str:
    reasons: dict[str, list[str]] = {}
    for r in (r for r in records if r["id"] == "skipped"):
        reasons.setdefault(r["reason"], []).append(r["variant"])
    if not reasons:
        return ""
    lines = ["Not measured:", ""]
    for reason, variants in reasons.items():
        more = f" and {len(variants) - 3} more" if len(variants) > 3 else ""
        lines.append(f"- {'; '.join(variants[:3])}{more}: {reason}")
    return "\n".join(lines)


def _case(r: Record) -> str:
    return f"{r['workload']} | {r['psf']} | {r['task']} | {r['batch']}"


def _spread(r: Record) -> str:
    low, high = r["spread"]
    return f"{r['value']:.2f} ({low:.2f}-{high:.2f})"
