"""Small geometry helpers: rounded outlines, distance fields, surface nets, lathes.

All lengths are metres.  The car's axes: x points forward, y to the car's left, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[Any]
Corner = tuple[float, float, float]
"""A corner of an outline: two coordinates and the radius of its rounding."""


def rounded(corners: Sequence[Corner], steps: int = 7) -> Array:
    """Return the closed polygon of `corners` with each corner rounded off."""
    points: list[tuple[float, float]] = []
    n = len(corners)
    for i, (u, v, radius) in enumerate(corners):
        here = np.array([u, v])
        before = np.array(corners[i - 1][:2]) - here
        after = np.array(corners[(i + 1) % n][:2]) - here
        len_b, len_a = float(np.hypot(*before)), float(np.hypot(*after))
        cut = min(radius, 0.49 * len_b, 0.49 * len_a)
        if cut <= 1e-6:
            points.append((u, v))
            continue
        start, end = here + before / len_b * cut, here + after / len_a * cut
        for t in np.linspace(0.0, 1.0, steps):
            p = (1 - t) ** 2 * start + 2 * t * (1 - t) * here + t * t * end
            points.append((float(p[0]), float(p[1])))
    return np.array(points)


def polygon_distance(polygon: Array, u: Array, v: Array) -> Array:
    """Signed distance (negative inside) from the points (u, v) to a closed polygon."""
    best = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, dtype=bool)
    for (au, av), (bu, bv) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        du, dv = bu - au, bv - av
        length2 = max(du * du + dv * dv, 1e-12)
        t = np.clip(((u - au) * du + (v - av) * dv) / length2, 0.0, 1.0)
        best = np.minimum(best, (u - au - t * du) ** 2 + (v - av - t * dv) ** 2)
        if av != bv:
            crosses = (av > v) != (bv > v)
            inside ^= crosses & (u < au + (v - av) / (bv - av) * du)
    return np.asarray(np.where(inside, -1.0, 1.0) * np.sqrt(best))


class OutlineField:
    """Signed distance to an outline, tabulated once and then read by interpolation."""

    def __init__(self, corners: Sequence[Corner], pad: float = 0.6, step: float = 0.01) -> None:
        polygon = rounded(corners)
        self.low = polygon.min(axis=0) - pad
        self.step = step
        size = np.ceil((polygon.max(axis=0) + pad - self.low) / step).astype(int) + 2
        axes = [self.low[k] + step * np.arange(size[k]) for k in (0, 1)]
        grid_u, grid_v = np.meshgrid(axes[0], axes[1], indexing="ij")
        self.table = polygon_distance(polygon, grid_u, grid_v)

    def __call__(self, u: Array, v: Array) -> Array:
        """Return the distance at the points (u, v)."""
        nu, nv = self.table.shape
        a = np.clip((u - self.low[0]) / self.step, 0, nu - 1.001)
        b = np.clip((v - self.low[1]) / self.step, 0, nv - 1.001)
        i, j = a.astype(int), b.astype(int)
        fa, fb, t = a - i, b - j, self.table
        lower = t[i, j] * (1 - fa) + t[i + 1, j] * fa
        upper = t[i, j + 1] * (1 - fa) + t[i + 1, j + 1] * fa
        return np.asarray(lower * (1 - fb) + upper * fb)


def smooth_max(a: Array, b: Array, radius: float) -> Array:
    """Maximum of two fields with the edge rounded: the smooth intersection."""
    h = np.maximum(radius - np.abs(a - b), 0.0) / radius
    return np.asarray(np.maximum(a, b) + h * h * radius * 0.25)


def smooth_min(a: Array, b: Array, radius: float) -> Array:
    """Minimum of two fields with the edge filled: the smooth union."""
    return -smooth_max(-a, -b, radius)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def surface_nets(
    field: Callable[[Array, Array, Array], Array],
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    step: float,
) -> tuple[Array, Ints, Array]:
    """Mesh the zero level of `field`: vertices, quads (outward) and vertex normals."""
    axes = [np.arange(low[k], high[k] + step, step) for k in range(3)]
    f = field(*np.meshgrid(*axes, indexing="ij"))
    inside = f < 0
    shape = np.array(f.shape)
    count = sum(
        inside[i : shape[0] - 1 + i, j : shape[1] - 1 + j, k : shape[2] - 1 + k].astype(np.int8)
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    )
    active = np.argwhere((np.asarray(count) > 0) & (np.asarray(count) < 8))
    total, hits = np.zeros((len(active), 3)), np.zeros(len(active))
    for axis in range(3):
        for p in (0, 1):
            for q in (0, 1):
                offset = np.insert(np.array([p, q]), axis, 0)
                first = active + offset
                second = first.copy()
                second[:, axis] += 1
                fa, fb = f[tuple(first.T)], f[tuple(second.T)]
                cross = (fa < 0) != (fb < 0)
                t = np.where(cross, fa / np.where(cross, fa - fb, 1.0), 0.0)
                point = first.astype(float)
                point[:, axis] += t
                total[cross] += point[cross]
                hits += cross
    origin = np.array([a[0] for a in axes])
    vertices: Array = origin + step * total / hits[:, None]
    index = np.full(shape - 1, -1, dtype=np.int64)
    index[tuple(active.T)] = np.arange(len(active))
    quads: list[Ints] = []
    for axis in range(3):
        first_slice: list[slice] = [slice(1, -1)] * 3
        second_slice = list(first_slice)
        first_slice[axis], second_slice[axis] = slice(0, -1), slice(1, None)
        a, b = inside[tuple(first_slice)], inside[tuple(second_slice)]
        base = [slice(0, -1)] * 3
        corners = []
        others = [k for k in range(3) if k != axis]
        for p, q in ((0, 0), (1, 0), (1, 1), (0, 1)):
            region = list(base)
            region[axis] = slice(0, None)
            region[others[0]] = slice(p, shape[others[0]] - 2 + p)
            region[others[1]] = slice(q, shape[others[1]] - 2 + q)
            corners.append(index[tuple(region)])
        quad = np.stack(corners, axis=-1)
        forward = quad[a & ~b]
        backward = quad[~a & b][:, ::-1]
        if axis == 1:
            forward, backward = forward[:, ::-1], backward[:, ::-1]
        quads += [forward, backward]

    def gradient(at: Array) -> tuple[Array, Array]:
        e = 0.004
        x, y, z = at.T
        value = field(x, y, z)
        parts = [
            field(x + e, y, z) - field(x - e, y, z),
            field(x, y + e, z) - field(x, y - e, z),
            field(x, y, z + e) - field(x, y, z - e),
        ]
        return value, np.stack(parts, axis=1) / (2 * e)

    for _ in range(2):
        value, slope = gradient(vertices)
        move = value[:, None] * slope / np.maximum((slope**2).sum(1), 0.2)[:, None]
        vertices -= np.clip(move, -step * 0.6, step * 0.6)
    _, slope = gradient(vertices)
    normals = slope / np.maximum(np.linalg.norm(slope, axis=1), 1e-6)[:, None]
    return vertices, np.concatenate(quads), normals


def lathe(profile: Sequence[tuple[float, float]], count: int = 40) -> tuple[Array, Ints]:
    """Turn a profile of (radius, y) round the y axis."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    rings = [np.stack([r * np.cos(angle), np.full(count, y), r * np.sin(angle)], 1) for r, y in profile]
    faces = []
    for i in range(len(profile) - 1):
        a = i * count + np.arange(count)
        b = i * count + (np.arange(count) + 1) % count
        faces.append(np.stack([a, b, b + count, a + count], axis=1))
    return np.concatenate(rings), np.concatenate(faces)


def superellipsoid(size: tuple[float, float, float], power: float, rows: int = 14) -> tuple[Array, Ints]:
    """A rounded box between a ball (power 1) and a brick (power towards 0)."""

    def bend(x: Array) -> Array:
        return np.asarray(np.sign(x) * np.abs(x) ** power)

    lat = np.linspace(-np.pi / 2, np.pi / 2, rows)
    lon = np.linspace(0, 2 * np.pi, rows * 2, endpoint=False)
    la, lo = np.meshgrid(lat, lon, indexing="ij")
    points = np.stack(
        [
            size[0] / 2 * bend(np.cos(la)) * bend(np.cos(lo)),
            size[1] / 2 * bend(np.cos(la)) * bend(np.sin(lo)),
            size[2] / 2 * bend(np.sin(la)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    m = rows * 2
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(m), indexing="ij")
    a, b = i * m + j, i * m + (j + 1) % m
    return points, np.stack([a, b, b + m, a + m], axis=-1).reshape(-1, 4)
