"""What determines a run: input files, source model, settings; kept as JSON, from which the run can be repeated."""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tflens import fits_io
from tflens.errors import ObservationError, ParameterError
from tflens.files import is_file, is_there
from tflens.observation import Observation
from tflens.parsing import parse_json

FORMAT, FORMAT_VERSION = "tflens.fit", 1
SOURCES = ("neural", "sersic")

RECORDED = ("model", "starter", "versions", "machine", "commit")
"""What a run notes in its configuration beside what it was given."""


@dataclass(frozen=True)
class Input:
    """Where the observation is read from.

    Args:
        file: a FITS file with all parts, or the file of the image alone.
        image, noise, psf, mask: extensions of `file`, by name or number; `mask=None` uses every pixel.
        noise_file, psf_file, mask_file: files of their own for these parts, `path` or `path[EXT]`.
        pixel_scale: arcsec; None takes the header's.
        sha256: of every file, filled in by `with_digests`.
        noise_correlation: "auto" measures it on the image's own blank sky; "none" takes the noise for white; another
            word is a FITS file, `path` or `path[EXT]`; rows of numbers are the kernel itself. None takes the extension
            CORR of `file`, if there is one.
        noise_scale: number that the noise map is multiplied by; "auto" measures it.
    """

    file: str
    image: str = "SCI"
    noise: str = "ERR"
    psf: str = "PSF"
    mask: str | None = "MASK"
    noise_file: str | None = None
    psf_file: str | None = None
    mask_file: str | None = None
    pixel_scale: float | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    noise_correlation: str | Sequence[Sequence[float]] | None = None
    noise_scale: str | float = 1.0

    def __post_init__(self) -> None:
        for name in ("file", "noise_file", "psf_file", "mask_file"):
            self._check(name, str | os.PathLike, "the path of a file", optional=name != "file")
        for name in ("image", "noise", "psf", "mask"):
            self._check(name, str | int, "the name or number of an extension", optional=name == "mask")
        self._check("pixel_scale", int | float, "a number, arcsec per pixel", optional=True)
        self._check("sha256", Mapping, "the digest of each file", optional=False)
        if not isinstance(self.noise_correlation, str | None):
            try:
                np.array(self.noise_correlation, float)
            except (TypeError, ValueError):
                self._refuse("noise_correlation", '"auto", "none", a file, or rows of numbers of one length')
        scale = self.noise_scale
        if scale == "auto":
            return
        try:
            value = float(scale)
        except (TypeError, ValueError):
            value = float("nan")
        if not 0 < value < float("inf"):
            raise ParameterError(f'Input.noise_scale must be "auto" or a positive number, got {scale!r}')
        object.__setattr__(self, "noise_scale", value)

    def read(self) -> Observation:
        """The observation.

        Raises:
            ObservationError: as `Observation.from_fits`; or a file is not the one whose SHA-256 was recorded; or there
                is too little blank sky to measure the noise on.
        """
        observation = self._read_files()
        correlation, scale, _ = self._noise(observation)
        if scale == 1 and correlation is observation.noise_correlation:
            return observation
        return observation.with_noise(correlation, scale)

    def measured(self) -> tuple["Input", str | None]:
        """The same input with numbers for what `read` measures of the noise or reads from a file of its own, so that
        it can be repeated; and what it measures, in words.

        Raises:
            ObservationError: as `read`.
        """
        if (self.noise_correlation, self.noise_scale) == (None, 1.0):
            return self, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `read` repeats what there is to say of the files
            correlation, scale, words = self._noise(self._read_files())
        rows = "none" if correlation is None else correlation.tolist()
        return replace(self, noise_correlation=rows, noise_scale=scale), words

    def _check(self, name: str, kind: Any, rule: str, optional: bool) -> None:
        value = getattr(self, name)
        if not (isinstance(value, kind) and not isinstance(value, bool)) and not (optional and value is None):
            self._refuse(name, rule + (" or left out" if optional else ""))
        if isinstance(value, os.PathLike):
            object.__setattr__(self, name, os.fspath(value))

    def _refuse(self, name: str, rule: str) -> None:
        raise ParameterError(f"Input.{name} must be {rule}, got {_short(getattr(self, name))}")

    def _noise(self, observation: Observation) -> tuple[np.ndarray | None, float, str | None]:
        """Correlation and scale of the noise, and what was measured of them, in words."""
        given, scale, words = self.noise_correlation, self.noise_scale, None
        correlation = observation.noise_correlation
        if given is not None and not isinstance(given, str):
            correlation = np.array(given, float)
        elif given == "none":
            correlation = None
        if "auto" in (given, scale):
            from tflens.sky_noise import measure_sky_noise

            found = measure_sky_noise(observation)
            correlation = found.kernel if given == "auto" else correlation
            words = found.in_words(correlation is not None, scale)
            scale = found.scale if scale == "auto" else scale
        return correlation, float(scale), words

    def _read_files(self) -> Observation:
        if self.sha256 and self.with_digests().sha256 != dict(self.sha256):
            raise ObservationError(
                f"{', '.join(str(path) for path in self._paths().values())}: the input must be the file that the "
                "configuration was written for, but its SHA-256 differs. Give the original file, or fit without "
                "--config."
            )
        kernel_file = self._kernel_file()
        if not (self.noise_file or self.psf_file or self.mask_file or kernel_file):
            return Observation.from_fits(
                self.file,
                image=self.image,
                noise=self.noise,
                psf=self.psf,
                mask=self.mask,
                pixel_scale=self.pixel_scale,
            )
        return Observation.from_files(
            image=self._part(self.image) or self.file,
            noise=self.noise_file or f"{self.file}[{self.noise}]",
            psf=self.psf_file or f"{self.file}[{self.psf}]",
            mask=self.mask_file or (self.mask and self._part(self.mask)),
            pixel_scale=self.pixel_scale,
            noise_correlation=kernel_file or self._part("CORR"),
        )

    def _kernel_file(self) -> str | None:
        given = self.noise_correlation
        return given if isinstance(given, str) and given not in ("auto", "none") else None

    def with_digests(self) -> "Input":
        """The same input with absolute paths and the SHA-256 of every file.

        Raises:
            ObservationError: a file does not exist.
        """
        digests = {}
        for name, path in self._paths().items():
            if not is_file(path):
                raise ObservationError(f"{path}: the FITS file does not exist. Check the path.")
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        absolute = {name: str(path.resolve()) + extension for name, (path, extension) in self._parts().items()}
        return replace(self, **absolute, sha256=digests)

    def absolute(self) -> "Input":
        """The same input with absolute paths, for a process that runs elsewhere."""
        given = {name: getattr(self, name) for name in ("file", "noise_file", "psf_file", "mask_file")}
        given["noise_correlation"] = self._kernel_file()
        paths = {name: os.path.abspath(path) for name, path in given.items() if path is not None}
        return replace(self, **paths)

    def _paths(self) -> dict[str, Path]:
        return {name: path for name, (path, _) in self._parts().items()}

    def _parts(self) -> dict[str, tuple[Path, str]]:
        """Path and `[EXT]` of every file that is given."""
        given = {name: getattr(self, name) for name in ("file", "noise_file", "psf_file", "mask_file")}
        return {name: _split(value) for name, value in given.items() if value is not None}

    def _part(self, extension: str) -> str | None:
        """`file[EXT]` if the file has the extension."""
        with fits_io.open_fits(Path(self.file)) as hdus:
            found = fits_io.find_extension(hdus, Path(self.file), extension)
        return None if found is None else f"{self.file}[{extension}]"


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run.

    Args:
        input: where the observation is.
        source: "neural" (a galaxy drawn by the shipped network) or "sersic", of the default model.
        tables: of a model of one's own, as `tflens.model_file.read_tables` has them; None for the default model.
        shared: of a lens among others that share what is compiled, None of one by itself: `center` of the default
            model, arcsec, and, once it is fitted, `refine`, how finely each pixel was sampled.
        settings: arguments of `tflens.inference.settings.FitSettings`; what is not given takes its default.
        recorded: of a configuration that was read from a file: the model and the versions at that time.

    Raises:
        ParameterError: there is no such source.

    Example:
        >>> RunConfig(Input("lens.fits"), settings={"seed": 3}).source
        'neural'
    """

    input: Input
    source: str = "neural"
    settings: Mapping[str, int] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] | None = None
    shared: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ParameterError(f"source must be one of {', '.join(SOURCES)}, got {_short(self.source)}")
        for name in ("settings", "recorded", "tables", "shared"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) and not (value is None and name in ("tables", "shared")):
                raise ParameterError(f"{name} must be a table of names and values, got {_short(value)}")
        unknown = sorted(set(self.recorded) - set(RECORDED))
        if unknown:
            known = ", ".join([*(item.name for item in fields(self) if item.name != "recorded"), *RECORDED])
            raise ParameterError(f"unknown key {_short(unknown[0])}; a configuration has {known}")
        for name in ("model", "versions"):
            if not isinstance(self.recorded.get(name, {}), Mapping):
                raise ParameterError(f"{name} must be a table as it was recorded, got {_short(self.recorded[name])}")
        center = (self.shared or {}).get("center", (0.0, 0.0))
        if not _two_numbers(center):
            raise ParameterError(f"shared.center must be two numbers (x, y), arcsec, got {_short(center)}")

    def with_file(self, file: str) -> "RunConfig":
        """The same with the main file elsewhere; its SHA-256 must still be the recorded one."""
        return replace(self, input=replace(self.input, file=file))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "input": asdict(self.input),
            "source": self.source,
            "settings": dict(self.settings),
            **({} if self.tables is None else {"tables": self.tables}),
            **({} if self.shared is None else {"shared": self.shared}),
            **self.recorded,
        }

    @classmethod
    def load(cls, path: str | Path) -> "RunConfig":
        """The configuration in the `config.json` of an output folder.

        Raises:
            ParameterError: the file is missing, is not readable JSON, or does not describe a fit.
        """
        path = Path(path)
        try:
            content = parse_json(path.read_text())
        except FileNotFoundError:
            raise ParameterError(f"{path}: the configuration does not exist. Give DIR/config.json of a run.") from None
        except (OSError, ValueError) as error:
            raise ParameterError(f"{path}: the configuration must be readable JSON, but {error}.") from None
        if not isinstance(content, dict) or (content.get("format"), content.get("format_version")) != (
            FORMAT,
            FORMAT_VERSION,
        ):
            raise ParameterError(
                f'{path}: a configuration must have "format": "{FORMAT}" and "format_version": {FORMAT_VERSION}. '
                "Give DIR/config.json of a run."
            )
        own = {"format", "format_version", *(item.name for item in fields(cls))}
        try:
            return cls(
                input=_input(content),
                source=_needed(content, "source"),
                settings=_needed(content, "settings"),
                tables=content.get("tables"),
                shared=content.get("shared"),
                recorded={key: value for key, value in content.items() if key not in own},
            )
        except ParameterError as error:
            raise ParameterError(
                f"{path}: the configuration does not describe a fit: {error}. Give DIR/config.json as a run wrote it."
            ) from None


def _input(content: Mapping[str, Any]) -> Input:
    given = _needed(content, "input")
    if not isinstance(given, Mapping):
        raise ParameterError(f"input must be a table of names and values, got {_short(given)}")
    known = [item.name for item in fields(Input)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ParameterError(f"input: unknown key {_short(unknown[0])}; it has {', '.join(known)}")
    return Input(_needed(given, "file", "input."), **{key: value for key, value in given.items() if key != "file"})


def _needed(content: Mapping[str, Any], key: str, place: str = "") -> Any:
    if key not in content:
        raise ParameterError(f"the key {place}{key} is missing")
    return content[key]


def _two_numbers(value: Any) -> bool:
    try:
        return np.shape(np.array(value, float)) == (2,) and bool(np.isfinite(np.array(value, float)).all())
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    """A value for a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _split(file: str) -> tuple[Path, str]:
    """A path and its `[EXT]`, "" if there is none; a file whose own name ends in brackets is taken at its word."""
    match = re.fullmatch(r"(.+)(\[[^\[\]]+\])", file)
    return (Path(file), "") if match is None or is_there(Path(file)) else (Path(match[1]), match[2])
