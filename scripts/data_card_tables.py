"""The tables of the data card, made from the records of `docs/results/data_card.json`."""

import re
from pathlib import Path

from tflens.files import write_atomically

UNITS = {"magnitude": "AB, F814W", "half_light_radius": "arcsec", "knot_fraction": "of all light"}


def sample(records: list[dict]) -> str:
    rows = ["| property | 5 % | 16 % | median | 84 % | 95 % |", "|---|---|---|---|---|---|"]
    for r in (r for r in records if r["id"] == "sample"):
        a, b, c, d = r["spread"]
        name = f"{r['variant']} ({UNITS[r['variant']]})" if r["variant"] in UNITS else r["variant"]
        rows.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in (a, b, r["value"], c, d)) + " |")
    structures = [r for r in records if r["id"] == "structure"]
    rows += ["", "| structure | share of the galaxies |", "|---|---|"]
    rows += [f"| {r['variant']} | {r['value']:.1%} |" for r in structures]
    return "\n".join([*rows, "", f"{structures[0]['n']} held-out galaxies. {_source(records)}"])


def morphology(records: list[dict]) -> str:
    chosen = [r for r in records if r["id"] == "morphology"]
    parts = []
    for selection in dict.fromkeys(r["selection"] for r in chosen):
        rows = [
            f"**{selection[0].upper()}{selection[1:]}**",
            "",
            "| statistic | real: 16, 50, 84 % | simulated | distance | null (95 %) | chance | without structure |",
            "|---|---|---|---|---|---|---|",
        ]
        within = [r for r in chosen if r["selection"] == selection]
        bare = {r["statistic"]: r for r in within if r["variant"] == "smooth"}
        drawn = [r for r in within if r["variant"] == "as drawn"]
        for r in drawn:
            real, simulated = (", ".join(f"{value:.2f}" for value in r[key]) for key in ("real", "simulated"))
            rows.append(
                f"| {r['statistic']} | {real} | {simulated} | {r['value']:.2f} | {r['null']:.2f} ({r['null_95']:.2f}) "
                f"| {r['chance']:.3f} | {bare[r['statistic']]['value']:.2f} |"
            )
        mean = [sum(r[key] for r in drawn) / len(drawn) for key in ("value", "null")]
        without = sum(r["value"] for r in bare.values()) / len(bare)
        rows.append(f"| mean | | | {mean[0]:.2f} | {mean[1]:.2f} | | {without:.2f} |")
        failed = [max(r["failed"][i] for r in drawn) for i in (0, 1)]
        rows += [
            "",
            f"{max(r['n'] for r in drawn)} real and {max(r['n_simulated'] for r in drawn)} simulated galaxies; "
            f"measurements failed for up to {failed[0]:.0%} of the real and {failed[1]:.0%} of the simulated.",
            "",
        ]
        parts += rows
    return "\n".join([*parts, _source(chosen)])


def sersic(records: list[dict]) -> str:
    chosen = [r for r in records if r["id"] == "sersic"]
    rows = [
        "| galaxies | share with structure left | expected of noise alone | excess chi^2 in sigma: 16, 50, 84 % |",
        "|---|---|---|---|",
    ]
    for r in chosen:
        excess = ", ".join(f"{value:.1f}" for value in r["excess"])
        rows.append(f"| {r['variant']} | {r['value']:.1%} +- {r['spread']:.1%} | {r['null']:.0%} | {excess} |")
    return "\n".join([*rows, "", f"{chosen[0]['n']} galaxies in each row. {_source(chosen)}"])


TABLES = {"sample": sample, "morphology": morphology, "sersic": sersic}


def write_into(document: Path, records: list[dict]) -> None:
    """Replaces what stands between the markers `<!-- NAME -->` and `<!-- end -->` of a document."""
    text = document.read_text()
    for name, table in TABLES.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{document}: the markers of the table {name!r} are missing")
        made = f"{table(records)}\n"
        text = marked.sub(lambda match, made=made: match[1] + made + match[2], text)
    write_atomically(document, lambda path: path.write_text(text))


def _source(records: list[dict]) -> str:
    return f"From `{records[0]['command']}`, commit {str(records[0]['commit'])[:9]}."
