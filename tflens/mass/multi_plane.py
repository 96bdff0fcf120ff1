"""Lensing by several planes at different redshifts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.cosmology import cosmology as cosmology_from
from tflens.cosmology import describe, lensing_efficiency, transverse_distance
from tflens.errors import ParameterError
from tflens.mass.base import MassProfile
from tflens.mass.derivatives import hessian
from tflens.mass.subhalos import Subhalos
from tflens.mass.total import total
from tflens.parameters import Parameter
from tflens.profile import pack, unpack
from tflens.scan import scan
from tflens.time_delay import DAYS_PER_MPC_ARCSEC2

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

Values = Mapping[str, tf.Tensor]
Pair = tuple[tf.Tensor, tf.Tensor]


class Plane:
    """Mass profiles at one redshift, or at each of several.

    With several redshifts this is as many planes that hold the same profiles with different parameters, and they go
    through one compiled loop. Their parameters have an axis for the planes behind the batch, `[...batch, planes]`
    (`[...batch, planes, capacity]` for `Subhalos`); an axis of length 1, or none, is shared by all of them.

    Args:
        redshift: of the plane, or an ascending sequence of them.
        profiles: mass profiles; none at all is a plane to look at only.

    Raises:
        ParameterError: a redshift is not positive, they do not ascend, or `profiles` holds what is no mass profile.
    """

    def __init__(
        self, redshift: float | Sequence[float], profiles: Sequence[MassProfile | dict[str, Any]] = ()
    ) -> None:
        self.single = np.ndim(redshift) == 0
        self.redshifts = tuple(float(z) for z in np.atleast_1d(redshift))
        if not self.redshifts or not all(0 < z < np.inf for z in self.redshifts):
            raise ParameterError(f"Plane.redshift must be positive and finite, got {redshift!r}")
        if any(a >= b for a, b in zip(self.redshifts, self.redshifts[1:], strict=False)):
            raise ParameterError(f"Plane.redshift: the redshifts of a sequence must ascend, got {redshift!r}")
        self.profiles = tuple(unpack(profile, MassProfile, "Plane.profiles") for profile in profiles)

    def __repr__(self) -> str:
        return f"Plane({self.redshifts[0] if self.single else list(self.redshifts)}, {list(self.profiles)})"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        redshift = self.redshifts[0] if self.single else list(self.redshifts)
        return {"redshift": redshift, "profiles": [pack(profile) for profile in self.profiles]}


class MultiPlane(MassProfile):
    """Mass in several planes, as one effective lens whose deflection is theta - beta at the source.

    **Normalisation.** Every profile's parameters give its *reduced deflection for a source at `z_reference`*, which
    by default is `z_source`: alpha_i = (D_is / D_s) alpha_hat_i, as in lenstronomy (its `z_source_convention`).
    So theta_E is the Einstein radius that the plane alone would show to the *last* source, wherever the
    plane is, and not the radius for the next plane. Positions are then (Schneider, Ehlers & Falco 1992, ch. 9)

        beta_j = theta - sum_{i<j} (D_ij D_s) / (D_j D_is) alpha_i(beta_i),

    in which the factor is 1 - h_j / h_i with h = T(z, z_reference) / T(z) (see `tflens.cosmology`): the sums over i
    are running sums, exact in a curved universe too. At the reference redshift h = 0: the deflection is the plain sum
    of the planes' alpha_i, each taken where the ray hits the plane.

    Positions of profiles are angles on the plane as it would be seen without the planes before it.

    **Parameters** are named `plane{i}.{Profile}.{parameter}`, i counting the planes from 1 in the order given (which
    does not matter otherwise); profiles of one kind in one plane are numbered, `plane1.SIE1.theta_E`.

    There is no potential: the deflection of several planes has a curl. See `arrival_time` for the delays.

    Args:
        planes: `Plane`s, all in front of source and reference.
        z_source: redshift of the source that `deflection` is for.
        cosmology: of astropy, one by its name there, or {"H0": ..., "Om0": ...}; its distances are computed once, here.
        z_reference: source redshift of the normalisation, if other than `z_source`.

    Raises:
        ParameterError: no plane, a plane that is not in front of the source, or a parameter that is missing, unknown
            or has another number of planes.

    Example:
        >>> import tensorflow as tf
        >>> from tflens.mass import SIE
        >>> lens = MultiPlane([Plane(0.3, [SIE()]), Plane([0.5, 0.7, 0.9], [SIE()])], z_source=2.0)
        >>> lens.parameter_names[0], lens.parameter_names[5]
        ('plane1.SIE.theta_E', 'plane2.SIE.theta_E')
        >>> values = {name: 0.0 for name in lens.parameter_names}
        >>> values |= {"plane1.SIE.theta_E": 1.0, "plane2.SIE.theta_E": tf.constant([0.1, 0.0, 0.2])}
        >>> alpha_x, _ = lens.deflection(tf.constant([[2.0]]), tf.constant([[0.0]]), **values)
        >>> round(float(alpha_x[0, 0]), 5)
        1.3
    """

    def __init__(
        self,
        planes: Sequence[Plane | dict[str, Any]],
        z_source: float,
        cosmology: "FLRW | str | Mapping[str, float]" = "Planck18",
        z_reference: float | None = None,
    ) -> None:
        self.planes = tuple(plane if isinstance(plane, Plane) else Plane(**plane) for plane in planes)
        if not self.planes:
            raise ParameterError("MultiPlane.planes is empty: give it at least one plane")
        self.z_source = float(z_source)
        self.z_reference = self.z_source if z_reference is None else float(z_reference)
        last = max(z for plane in self.planes for z in plane.redshifts)
        for name, z in (("z_source", self.z_source), ("z_reference", self.z_reference)):
            if not last < z < np.inf:
                raise ParameterError(f"MultiPlane.{name} must be behind all planes, the last at {last}; got {z!r}")
        self.cosmology = cosmology_from(cosmology)
        self._labels = [_labels(i, plane) for i, plane in enumerate(self.planes, 1)]
        # Planes at the same redshift keep the order in which they were given.
        self._order = sorted(
            ((z, i, k) for i, plane in enumerate(self.planes) for k, z in enumerate(plane.redshifts)),
            key=lambda entry: entry[0],
        )
        redshifts = [*(z for z, _, _ in self._order), self.z_source]
        efficiencies = lensing_efficiency(self.cosmology, redshifts, self.z_reference)
        self._efficiency = dict(zip(redshifts, map(float, efficiencies), strict=True))

    def get_config(self) -> dict[str, Any]:
        return {
            "planes": [plane.get_config() for plane in self.planes],
            "z_source": self.z_source,
            "cosmology": describe(self.cosmology),
            "z_reference": self.z_reference,
        }

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The inputs of `deflection`, with an axis for the planes where a `Plane` has several redshifts."""
        return tuple(f"{label}.{name}" for _, label, profile in self._profiles() for name in profile.parameter_names)

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Scalar declarations, one for every plane, numbered where a `Plane` has several; `inputs` stacks them."""
        return tuple(
            Parameter(tuple(f"{label}.{name}{end}" for name in p.names), p.unit, p.description, p.prior)
            for plane, label, profile in self._profiles()
            for end in _endings(plane)
            for p in profile.parameters
        )

    def inputs(self, values: Values) -> dict[str, tf.Tensor]:
        """From scalars `[...batch]` by the names of `parameters` to the arguments of `deflection`."""
        result = {}
        for plane, label, profile in self._profiles():
            names = [name for p in profile.parameters for name in p.names]
            each = [{name: values[f"{label}.{name}{end}"] for name in names} for end in _endings(plane)]
            if isinstance(profile, Subhalos):
                each = [profile.inputs(one) for one in each]
            for name in profile.parameter_names:
                column = [one[name] for one in each]
                result[f"{label}.{name}"] = column[0] if plane.single else tf.stack(column, -1 - _ndims(profile))
        return result

    def deflection(self, x, y, **parameters):
        (ray,) = self._trace(x, y, parameters, [self.z_source])
        return ray.deflection(self._h(self.z_source))

    def positions(
        self, x: tf.Tensor, y: tf.Tensor, redshifts: Sequence[float], **parameters: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Positions (beta_x, beta_y), arcsec, of the rays at given redshifts, for sources at each of them.

        Args:
            x, y: image positions, arcsec.
            redshifts: positive, in any order; in front of, at, between or behind the planes.

        Raises:
            ParameterError: a redshift is not positive.

        Example:
            >>> import tensorflow as tf
            >>> from tflens.mass import SIE
            >>> lens = MultiPlane([Plane(0.5, [SIE()])], z_source=2.0, cosmology={"H0": 70.0, "Om0": 0.3})
            >>> sie = dict(theta_E=1.0, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)
            >>> x, y = tf.constant([[3.0]]), tf.constant([[0.0]])
            >>> sources = lens.positions(x, y, [0.5, 1.0, 2.0], **{f"plane1.SIE.{k}": v for k, v in sie.items()})
            >>> [round(float(beta_x[0, 0]), 3) for beta_x, _ in sources]
            [3.0, 2.326, 2.0]
        """
        if not all(0 < z < np.inf for z in redshifts):
            raise ParameterError(f"MultiPlane.positions: redshifts must be positive and finite, got {redshifts!r}")
        rays = self._trace(x, y, parameters, sorted(redshifts))
        found = {z: ray.position(self._h(z)) for z, ray in zip(sorted(redshifts), rays, strict=True)}
        return [found[z] for z in redshifts]

    def arrival_time(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Arrival time, days, `[...batch, ny, nx]`, behind that of a straight ray to the point where each ray ends.

        Differences between images of one source are its time delays. The sum over planes of (1 + z_i) D_i D_i+1 /
        (c D_i,i+1) |beta_i - beta_i+1|^2 / 2, less (1 + z_i) D_i D_s / (c D_is) psi_i (Schneider, Ehlers & Falco
        1992, ch. 9).
        """
        (ray,) = self._trace(x, y, parameters, [self.z_source], timed=True)
        h = self._h(self.z_source)
        delay = ray.delay + ray.detour(*ray.position(h), self._geometry(self._order[-1][0], self.z_source))
        return DAYS_PER_MPC_ARCSEC2 * transverse_distance(self.cosmology, self.z_reference) * delay

    def potential(self, x, y, **parameters):
        raise ParameterError("a lens of several planes has no potential: see MultiPlane.arrival_time for delays")

    def jacobian(self, x, y, **parameters):
        raise ParameterError(
            "the Jacobian of several planes is not symmetric: for its four entries use tflens.mass.derivatives.hessian "
            "on MultiPlane.deflection, for its determinant MultiPlane.magnification"
        )

    def convergence(self, x, y, **parameters):
        """Effective convergence, half the divergence of the deflection."""
        xx, _, _, yy = hessian(lambda x, y: self.deflection(x, y, **parameters), x, y)
        return (xx + yy) / 2

    def magnification(self, x, y, **parameters):
        xx, xy, yx, yy = hessian(lambda x, y: self.deflection(x, y, **parameters), x, y)
        return 1 / ((1 - xx) * (1 - yy) - xy * yx)

    def _trace(
        self, x: tf.Tensor, y: tf.Tensor, parameters: Values, stops: Sequence[float], timed: bool = False
    ) -> list["_Ray"]:
        """The rays in front of each of the redshifts `stops`, which ascend."""
        names = self.parameter_names
        if set(parameters) != set(names):
            missing, unknown = sorted(set(names) - set(parameters)), sorted(set(parameters) - set(names))
            raise ParameterError(f"MultiPlane: parameters missing: {missing}, unknown: {unknown}")
        ray = _Ray(tf.convert_to_tensor(x), tf.convert_to_tensor(y))
        rays = []
        before = None
        for group in self._groups(stops):
            if isinstance(group, float):
                rays.append(ray)
                continue
            plane = self.planes[group[0][1]]
            redshifts = [z for z, _, _ in group]
            h = [self._h(z) for z in redshifts]
            geometry = [self._geometry(*pair) for pair in zip([before, *redshifts], redshifts, strict=False)]
            values = [
                {name: parameters[f"{label}.{name}"] for name in profile.parameter_names}
                for other, label, profile in self._profiles()
                if other is plane
            ]
            if plane.single:
                ray = ray.through(plane.profiles, values, h[0], geometry[0], timed)
            else:
                ray = _through_all(ray, plane, values, group[0][2], h, geometry, timed)
            before = redshifts[-1]
        return rays

    def _groups(self, stops: Sequence[float]) -> Iterator[list[tuple[float, int, int]] | float]:
        """What a ray meets, in this order: planes, several at a time where one loop serves them, and stops."""
        events = sorted([*self._order, *((z, -1, 0) for z in stops)], key=lambda event: event[0])
        run: list[tuple[float, int, int]] = []
        for z, i, k in events:
            if run and i != run[-1][1]:
                yield run
                run = []
            if i < 0:
                yield float(z)
            else:
                run.append((z, i, k))
        if run:
            yield run

    def _profiles(self) -> Iterator[tuple[Plane, str, MassProfile]]:
        for plane, labels in zip(self.planes, self._labels, strict=True):
            yield from ((plane, label, profile) for label, profile in zip(labels, plane.profiles, strict=True))

    def _h(self, z: float) -> float:
        if z in self._efficiency:
            return self._efficiency[z]
        return float(lensing_efficiency(self.cosmology, [z], self.z_reference)[0])

    def _geometry(self, z_before: float | None, z: float) -> float:
        """T_i T_j / (2 T_ij), in units of the distance to the reference, for neighbours; 0 where there is no way."""
        if z_before is None or z_before == z:
            return 0.0
        return 0.5 / (self._h(z_before) - self._h(z))


class _Ray(NamedTuple):
    """Rays on their way back from the observer: where they started, and the running sums over the planes passed."""

    x: tf.Tensor
    y: tf.Tensor
    # Sum of alpha_i.
    alpha_x: tf.Tensor | float = 0.0
    alpha_y: tf.Tensor | float = 0.0
    # Sum of alpha_i / h_i.
    slope_x: tf.Tensor | float = 0.0
    slope_y: tf.Tensor | float = 0.0
    # Delay so far in units of the distance to the reference, and the position on the last plane, for its next term.
    delay: tf.Tensor | float = 0.0
    last_x: tf.Tensor | float = 0.0
    last_y: tf.Tensor | float = 0.0

    def deflection(self, h: tf.Tensor | float) -> Pair:
        return self.alpha_x - h * self.slope_x, self.alpha_y - h * self.slope_y

    def position(self, h: tf.Tensor | float) -> Pair:
        alpha_x, alpha_y = self.deflection(h)
        return self.x - alpha_x, self.y - alpha_y

    def detour(self, x: tf.Tensor, y: tf.Tensor, geometry: tf.Tensor | float) -> tf.Tensor:
        return geometry * ((x - self.last_x) ** 2 + (y - self.last_y) ** 2)

    def through(
        self,
        profiles: Sequence[MassProfile],
        values: Sequence[Values],
        h: tf.Tensor | float,
        geometry: tf.Tensor | float,
        timed: bool,
    ) -> "_Ray":
        """Past one plane."""
        x, y = self.position(h)
        lens = total(profiles, values)
        alpha_x, alpha_y = lens.deflection(x, y)
        after = self._replace(
            alpha_x=self.alpha_x + alpha_x,
            alpha_y=self.alpha_y + alpha_y,
            slope_x=self.slope_x + alpha_x / h,
            slope_y=self.slope_y + alpha_y / h,
        )
        if not timed:
            return after
        delay = self.delay + self.detour(x, y, geometry) - lens.potential(x, y) / h
        return after._replace(delay=delay, last_x=x, last_y=y)


def _through_all(
    ray: _Ray,
    plane: Plane,
    values: Sequence[Values],
    first: int,
    h: Sequence[float],
    geometry: Sequence[float],
    timed: bool,
) -> _Ray:
    """Past several planes that hold the same profiles, from number `first` on, by a loop."""
    dtype = ray.x.dtype
    items = [tf.constant(h, dtype), tf.constant(geometry, dtype)]
    zeros = tf.zeros_like(ray.x + ray.y)
    for profile, given in zip(plane.profiles, values, strict=True):
        for name in profile.parameter_names:
            value = _planes_first(name, given[name], len(plane.redshifts), _ndims(profile), dtype)
            items.append(value[first : first + len(h)])
            # The first plane's entry of each, with the axes of the pixels in place of its own: only its batch counts.
            zeros += tf.zeros_like(value[(0, ..., *[0] * _ndims(profile))])[..., None, None]

    def step(carry, item, shared):
        h, geometry, *entries = item
        entries = iter(entries)
        parameters = [{name: next(entries) for name in profile.parameter_names} for profile in plane.profiles]
        after = _Ray(*shared, *carry).through(plane.profiles, parameters, h, geometry, timed)
        return list(after[2 : 2 + len(carry)]), [], []

    sums = ray[2:] if timed else ray[2:6]
    zeros += sum(tf.zeros_like(v) for v in sums if tf.is_tensor(v))
    last, _, _ = scan(step, [v + zeros for v in sums], items, [ray.x, ray.y], [])
    return _Ray(ray.x, ray.y, *last)


def _planes_first(name: str, value: tf.Tensor | float, planes: int, ndims: int, dtype: tf.DType) -> tf.Tensor:
    """`[...batch, planes, ...]`, with `ndims` axes behind the planes' own, to `[planes, ...batch, ...]`."""
    value = tf.cast(tf.convert_to_tensor(value, dtype_hint=dtype), dtype)
    while value.shape.rank <= ndims:
        value = value[None]
    axis = value.shape.rank - ndims - 1
    if value.shape[axis] not in (1, planes):
        raise ParameterError(
            f"MultiPlane: {name!r} of a Plane of {planes} redshifts must have that length (or 1, or no such axis at "
            f"all) on axis {axis - value.shape.rank}, got shape {tuple(value.shape)}"
        )
    value += tf.zeros([planes, *[1] * ndims], dtype)
    return tf.transpose(value, [axis, *range(axis), *range(axis + 1, value.shape.rank)])


def _ndims(profile: MassProfile) -> int:
    return getattr(profile, "parameter_ndims", 0)


def _endings(plane: Plane) -> list[str]:
    return [""] if plane.single else [f"_{k}" for k in range(1, len(plane.redshifts) + 1)]


def _labels(number: int, plane: Plane) -> list[str]:
    """One label for each profile of a plane; profiles of one kind are numbered."""
    kinds = [type(profile).__name__ for profile in plane.profiles]
    return [
        f"plane{number}.{kind}{kinds[: j + 1].count(kind) if kinds.count(kind) > 1 else ''}"
        for j, kind in enumerate(kinds)
    ]
