"""Build the mesh and the painted texture sheets of one design, without Blender.

The body is a signed distance field: a rounded side outline cut by a half-width that
varies along the car (plan view) and with height (shoulder, crease, sill), joined to
a cabin made the same way.  Windows, lamps, grille and seams are painted on four
sheets (side, front, rear, top) that are projected on the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from .shapes import (
    Array,
    Corner,
    Ints,
    OutlineField,
    lathe,
    polygon_distance,
    rounded,
    smooth_max,
    smooth_min,
    smoothstep,
    superellipsoid,
    surface_nets,
)

PIXELS_PER_METRE = 360
STEP = 0.022

# name: red, green, blue (0-255), share of body paint, roughness, metallic, emission
MATERIALS: dict[str, tuple[int, int, int, int, int, int, int]] = {
    "paint": (0, 0, 0, 255, 60, 0, 0),
    "seam": (5, 5, 5, 25, 160, 0, 0),
    "shade": (10, 10, 10, 150, 90, 0, 0),
    "black": (14, 14, 15, 0, 175, 0, 0),
    "cladding": (48, 49, 50, 0, 170, 0, 0),
    "frame": (8, 8, 9, 0, 130, 0, 0),
    "gloss": (9, 9, 10, 0, 20, 0, 0),
    "glass": (13, 15, 16, 0, 6, 0, 0),
    "cabin": (40, 39, 38, 0, 6, 0, 0),
    "chrome": (225, 226, 228, 0, 28, 255, 0),
    "silver": (165, 167, 170, 0, 80, 230, 0),
    "reflector": (150, 155, 160, 0, 22, 200, 0),
    "lamp": (84, 88, 94, 0, 14, 120, 0),
    "lens": (200, 206, 212, 0, 14, 120, 30),
    "light": (250, 250, 255, 0, 25, 0, 120),
    "amber": (225, 105, 10, 0, 25, 0, 20),
    "red": (170, 8, 12, 0, 20, 0, 25),
    "darkred": (80, 4, 8, 0, 20, 0, 8),
    "brightred": (235, 25, 22, 0, 20, 0, 90),
    "clear": (215, 214, 212, 0, 25, 60, 10),
}


@dataclass(frozen=True)
class Patch:
    """One shape painted on a sheet; on the front and rear it is mirrored left to right."""

    sheet: str
    material: str
    outline: tuple[Corner, ...] = ()
    disc: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirror: bool = True


@dataclass(frozen=True)
class Rim:
    """The look of the wheels: `spokes` blades, in pairs if `twin`, or a disc with holes."""

    spokes: int
    inner: float
    outer: float
    twin: float = 0.0
    twist: float = 0.0
    colour: str = "silver"
    disc: bool = False
    ratio: float = 0.70


@dataclass(frozen=True)
class Design:
    """Everything that is constant over the photos of one design."""

    make: str
    model: str
    width: float
    lower: tuple[Corner, ...]
    upper: tuple[Corner, ...]
    axles: tuple[float, float]
    tyre: tuple[float, float]
    rim: Rim
    shoulder: tuple[float, float]  # height at x = 0, rise per metre forwards
    roof: tuple[float, float]  # x of the rear and the front edge of the roof panel
    windows: tuple[tuple[Corner, ...], ...]
    posts: tuple[tuple[float, float, float], ...]  # x at the belt, x at the roof, width
    windscreen: tuple[float, float]  # lower and upper edge (z)
    backlight: tuple[float, float, float]  # lower edge, upper edge, corner radius
    doors: tuple[tuple[tuple[float, float], ...], ...]
    handles: tuple[tuple[float, float], ...]
    mirror: tuple[float, float]
    plates: tuple[float, float]  # height of the front and the rear plate
    patches: tuple[Patch, ...]
    crease: float = 0.10
    tuck: float = 0.35
    hollow: float = 0.012
    bow: tuple[float, float] = (0.26, 0.16)
    taper: tuple[float, float] = (0.08, 0.06)
    cabin_inset: float = 0.06
    tumble: float = 0.30
    cabin_taper: tuple[float, float] = (0.05, 0.09)
    cabin_bow: float = 0.12
    cabin_radius: float = 0.13
    crown: float = 0.05
    edge: float = 0.12
    flare: float = 0.025
    arch: float = 0.05
    pillar: float = 0.075
    rear_pillar: float = 0.085
    bed: tuple[float, float, float, float] | None = None  # x0, x1, floor, half-width
    blocks: tuple[tuple[float, float, float, float, float, float], ...] = ()
    rails: str = ""
    rail_span: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # x0, x1, y, z
    handle_material: str = "shade"
    arch_trim: str = ""

    @property
    def name(self) -> str:
        """Make and model, which is also the folder's name."""
        return f"{self.make} {self.model}"


@dataclass
class Part:
    """A mesh ready for Blender: quads, one material slot a face, UVs a corner."""

    vertices: Array
    faces: Ints
    slots: Ints
    uvs: Array | None = None
    normals: Array | None = None
    name: str = field(default="part")


class BodyField:
    """The signed distance field of one design's body."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.low_outline = OutlineField(design.lower)
        self.up_outline = OutlineField(design.upper)
        self.x0 = min(c[0] for c in design.lower)
        self.x1 = max(c[0] for c in design.lower)
        self.cabin_x = (min(c[0] for c in design.upper), max(c[0] for c in design.upper))
        self.belt = design.shoulder[0] + 0.02

    def half_width(self, x: Array, z: Array) -> Array:
        """Half-width of the lower body at (x, z)."""
        d = self.design
        front = np.clip((x - self.x1 + 1.5) / 1.5, 0, 1)
        rear = np.clip((self.x0 + 1.5 - x) / 1.5, 0, 1)
        half: Array = d.width / 2 - d.taper[0] * front**2 - d.taper[1] * rear**2
        line = d.shoulder[0] + d.shoulder[1] * x
        above, below = z - line, line - z
        half = half - d.crease * 1.6 * np.maximum(above, 0) - 0.9 * np.maximum(above - 0.1, 0) ** 2
        half = half - d.hollow * smoothstep(0.02, 0.16, below) * (1 - smoothstep(0.25, 0.5, below))
        half = half - d.tuck * np.maximum(0.42 - z, 0) ** 1.4
        for axle in d.axles:
            r = np.hypot(x - axle, z - d.tyre[0])
            rim = d.tyre[0] + d.arch
            half = half + d.flare * np.exp(-((np.maximum(r - rim, 0) / 0.14) ** 2)) * (z < line + 0.2)
        return half

    def cabin_half_width(self, x: Array, z: Array) -> Array:
        """Half-width of the cabin at (x, z)."""
        d = self.design
        front = np.clip((x - self.cabin_x[1] + 1.3) / 1.3, 0, 1)
        rear = np.clip((self.cabin_x[0] + 1.3 - x) / 1.3, 0, 1)
        half: Array = d.width / 2 - d.cabin_inset - d.cabin_taper[0] * front**2 - d.cabin_taper[1] * rear**2
        rise = np.maximum(z - self.belt, -0.1)
        return np.asarray(half - d.tumble * rise - 0.12 * np.maximum(rise, 0) ** 2)

    def lower(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the lower body, without the wheel arches."""
        d = self.design
        side = np.abs(y)
        ratio = np.clip(side / (d.width / 2), 0, 1.05)
        bend = ratio**2.6
        xs = x + d.bow[0] * bend * smoothstep(0.2, 1.3, x) - d.bow[1] * bend * smoothstep(0.2, 1.3, -x)
        zs = z + d.crown * 0.7 * ratio**2 * smoothstep(0.4, 0.75, z)
        return smooth_max(self.low_outline(xs, zs), side - self.half_width(x, z), d.edge)

    def upper(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the cabin."""
        d = self.design
        side = np.abs(y)
        ratio = np.clip(side / (d.width / 2), 0, 1.05)
        middle = sum(self.cabin_x) / 2
        bend = d.cabin_bow * ratio**2 * np.clip((x - middle) / 0.8, -1, 1)
        zs = z + d.crown * ratio**2
        return smooth_max(self.up_outline(x + bend, zs), side - self.cabin_half_width(x, z), d.cabin_radius)

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the whole body."""
        d = self.design
        out = smooth_min(self.lower(x, y, z), self.upper(x, y, z), 0.025)
        for cx, cz, sx, sy, sz, r in d.blocks:
            q = [np.abs(x - cx) - sx / 2 + r, np.abs(y) - sy / 2 + r, np.abs(z - cz) - sz / 2 + r]
            outside = np.sqrt(sum(np.maximum(k, 0) ** 2 for k in q))
            block = outside + np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0) - r
            out = smooth_min(out, block, 0.03)
        for axle in d.axles:
            wheel = np.hypot(x - axle, z - d.tyre[0]) - d.tyre[0] - d.arch
            well = np.maximum(wheel, d.width / 2 - 0.34 - np.abs(y))
            out = smooth_max(out, -well, 0.018)
        if d.bed is not None:
            x0, x1, floor, half = d.bed
            hole = np.maximum(np.maximum(x0 - x, x - x1), np.maximum(np.abs(y) - half, floor - z))
            out = smooth_max(out, -hole, 0.03)
        return out


class Sheets:
    """The four painted sheets of a design, packed in one atlas."""

    def __init__(self, design: Design) -> None:
        zs = [c[1] for c in (*design.lower, *design.upper)]
        xs = [c[0] for c in design.lower]
        self.x0, self.x1, self.top = min(xs) - 0.1, max(xs) + 0.1, max(zs) + 0.1
        k = PIXELS_PER_METRE
        length, height, across = (int(v * k) for v in (self.x1 - self.x0, self.top, 2.2))
        self.width = max(length, 2 * across)
        # origin in pixels (left, top) and the coordinates at the sheet's lower left corner
        self.places: dict[str, tuple[int, int, int, int, float, float]] = {
            "side": (0, 0, length, height, self.x0, 0.0),
            "top": (0, height, length, across, self.x0, -1.1),
            "front": (0, height + across, across, height, -1.1, 0.0),
            "rear": (across, height + across, across, height, -1.1, 0.0),
        }
        self.height = 2 * height + across
        size = (self.width, self.height)
        base = MATERIALS["paint"]
        self.colour = [Image.new("L", size, c) for c in base]

    def pixels(self, sheet: str, points: Array) -> Array:
        """Turn sheet coordinates into pixel positions of the atlas."""
        left, top, _, height, u0, v0 = self.places[sheet]
        k = PIXELS_PER_METRE
        return np.stack([left + (points[:, 0] - u0) * k, top + height - (points[:, 1] - v0) * k], axis=1)

    def uv(self, sheet: str, points: Array) -> Array:
        """Turn sheet coordinates into texture coordinates."""
        p = self.pixels(sheet, points)
        return np.stack([p[:, 0] / self.width, 1 - p[:, 1] / self.height], axis=1)

    def polygon(self, sheet: str, material: str, points: Array) -> None:
        """Fill a polygon with a material."""
        flat = [tuple(p) for p in self.pixels(sheet, points)]
        for image, value in zip(self.colour, MATERIALS[material], strict=True):
            ImageDraw.Draw(image).polygon(flat, fill=value)

    def line(self, sheet: str, material: str, points: Array, width: float) -> None:
        """Draw an open line of a given width."""
        flat = [tuple(p) for p in self.pixels(sheet, points)]
        thick = max(1, round(width * PIXELS_PER_METRE))
        for image, value in zip(self.colour, MATERIALS[material], strict=True):
            ImageDraw.Draw(image).line(flat, fill=value, width=thick, joint="curve")

    def patch(self, patch: Patch) -> None:
        """Paint a patch, and its mirror image on the front and the rear."""
        on_axis = patch.sheet in ("front", "rear")
        corners = [(u, v, 0.0 if on_axis and u == 0 else r) for u, v, r in patch.outline]
        points = rounded(corners) if corners else ring(*patch.disc)
        self.polygon(patch.sheet, patch.material, points)
        if patch.sheet in ("front", "rear") and patch.mirror:
            self.polygon(patch.sheet, patch.material, points * np.array([-1.0, 1.0]))

    def arrays(self) -> tuple[Array, Array]:
        """Colour plus paint share, and roughness, metallic, emission: two RGBA arrays."""
        c = [np.asarray(image, dtype=np.float32)[::-1] / 255 for image in self.colour]
        return np.stack(c[:4], axis=-1), np.stack([c[4], c[5], c[6], np.ones_like(c[0])], axis=-1)


def ring(u: float, v: float, radius: float) -> Array:
    """A circle as a polygon."""
    a = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([u + radius * np.cos(a), v + radius * np.sin(a)], axis=1)


def paint_sheets(design: Design, body: BodyField) -> Sheets:
    """Paint glass, seams, handles and the design's own patches."""
    sheets = Sheets(design)
    for window in design.windows:
        outline = rounded(window)
        centre = outline.mean(axis=0)
        sheets.polygon("side", "frame", centre + (outline - centre) * np.array([1.012, 1.05]))
        sheets.polygon("side", "glass", outline)
    z_roof = max(c[1] for c in design.upper)
    pane = rounded(design.windows[0])
    for x_belt, x_roof, width in design.posts:  # clipped to the window's outline
        zs = np.linspace(design.windows[0][0][1] - 0.1, z_roof, 120)
        xs = x_belt + (x_roof - x_belt) * (zs - zs[0]) / (zs[-1] - zs[0])
        zs = zs[polygon_distance(pane, xs, zs) < 0.01]
        if len(zs):
            xs = x_belt + (x_roof - x_belt) * (zs - design.windows[0][0][1]) / (z_roof - design.windows[0][0][1])
            sheets.line("side", "frame", np.stack([xs, zs], axis=1)[[0, -1]], width)
    for sheet, (z0, z1), radius, pillar in (
        ("front", design.windscreen, 0.07, design.pillar),
        ("rear", design.backlight[:2], design.backlight[2], design.rear_pillar),
    ):
        mid = design.roof[1] + 0.3 if sheet == "front" else design.roof[0] - 0.25
        half = [float(body.cabin_half_width(np.array([mid]), np.array([z]))[0]) - pillar for z in (z0, z1)]
        if z1 <= z0:
            continue
        grow = 0.018
        for material, g in (("gloss", grow), ("glass", 0.0)):
            a, b = half[0] + g, half[1] + g
            corners = ((-a, z0 - g, radius), (-b, z1 + g, radius), (b, z1 + g, radius), (a, z0 - g, radius))
            sheets.polygon(sheet, material, rounded(corners))
        if sheet == "front":
            for y in (-0.36, 0.36):  # seats seen through the windscreen
                sheets.polygon("front", "cabin", rounded(box(y, z0 + 0.1, 0.22, 0.2, 0.08)))
                sheets.polygon("front", "cabin", rounded(box(y, z0 + 0.2, 0.12, 0.08, 0.03)))
            sheets.polygon("front", "gloss", rounded(box(0.0, z1 - 0.03, 0.16, 0.05, 0.02)))
    for door in design.doors:
        sheets.line("side", "seam", np.array(door), 0.014)
    for x, z in design.handles:
        sheets.polygon("side", "seam", rounded(box(x, z - 0.004, 0.19, 0.05, 0.02)))
        sheets.polygon("side", design.handle_material, rounded(box(x, z + 0.004, 0.18, 0.026, 0.012)))
    for axle in design.axles:
        if design.arch_trim:
            sheets.polygon("side", design.arch_trim, ring(axle, design.tyre[0], design.tyre[0] + design.arch + 0.065))
    for patch in design.patches:
        sheets.patch(patch)
    return sheets


def box(u: float, v: float, width: float, height: float, radius: float) -> tuple[Corner, ...]:
    """A rounded rectangle by its centre."""
    a, b = width / 2, height / 2
    return ((u - a, v - b, radius), (u - a, v + b, radius), (u + a, v + b, radius), (u + a, v - b, radius))


def build_body(design: Design) -> tuple[Part, Sheets, BodyField]:
    """Mesh the body and give every face its sheet; slot 0 is painted, slot 1 is dark."""
    body = BodyField(design)
    sheets = paint_sheets(design, body)
    half = design.width / 2 + 0.12
    vertices, faces, normals = surface_nets(body, (body.x0 - 0.1, -half, 0.02), (body.x1 + 0.1, half, sheets.top), STEP)
    centre = vertices[faces].mean(axis=1)
    normal = normals[faces].mean(axis=1)
    x, y, z = centre.T
    cabin = body.upper(x, y, z) < body.lower(x, y, z)
    side = np.abs(normal[:, 1]) > np.where(cabin, 0.60, 0.66)
    rear_edge, front_edge = design.roof
    front = np.where(cabin, x > front_edge, normal[:, 0] > 0.38)
    rear = np.where(cabin, x < rear_edge, normal[:, 0] < -0.38)
    sheet = np.select([side, front, rear], [0, 1, 2], 3)
    uvs = np.zeros((len(faces), 4, 2))
    corners = vertices[faces]
    for k, (name, axes) in enumerate((("side", (0, 2)), ("front", (1, 2)), ("rear", (1, 2)), ("top", (0, 1)))):
        chosen = sheet == k
        uvs[chosen] = sheets.uv(name, corners[chosen][:, :, axes].reshape(-1, 2)).reshape(-1, 4, 2)
    dark = normal[:, 2] < -0.75
    dark &= z < 0.5
    for axle in design.axles:
        well = np.hypot(x - axle, z - design.tyre[0]) < design.tyre[0] + design.arch + 0.012
        dark |= well & (np.abs(normal[:, 1]) < 0.75)
        dark |= well & (np.abs(y) < design.width / 2 - 0.2)
    if design.bed is not None:
        x0, x1, floor, width = design.bed
        dark |= (x > x0 - 0.02) & (x < x1 + 0.02) & (np.abs(y) < width + 0.02) & (z < floor + 0.42) & (z > 0.5)
    return Part(vertices, faces, dark.astype(np.int64), uvs, normals, "body"), sheets, body


def build_wheel(design: Design) -> Part:
    """One wheel about the y axis, outside at +y; slots: 0 tyre, 1 rim, 2 dark."""
    radius, width = design.tyre
    rim, r = design.rim, design.tyre[0] * design.rim.ratio
    h = width / 2
    tyre = [
        (r - 0.01, h - 0.012), (r + 0.006, h + 0.004), (r + 0.35 * (radius - r), h + 0.012),
        (radius - 0.03, h), (radius - 0.004, h - 0.035), (radius, 0.0),
        (radius - 0.004, -h + 0.035), (radius - 0.03, -h), (r, -h),
    ]  # fmt: skip
    pieces = [(*lathe(tyre, 48), 0)]
    lip = [(r - 0.045, h - 0.05), (r - 0.022, h - 0.008), (r - 0.006, h + 0.003), (r + 0.004, h - 0.004)]
    pieces.append((*lathe(lip, 48), 1))
    pieces.append((*lathe([(0.0, h - 0.10), (r * 0.75, h - 0.10)], 24), 2))
    pieces.append((*lathe([(r * 0.75, h - 0.10), (r - 0.02, h - 0.05)], 36), 2))
    pieces.append((*lathe([(0.0, h - 0.012), (0.045, h - 0.014), (0.065, h - 0.03)], 24), 1))
    if rim.disc:
        plate = [(0.03, h - 0.018), (r * 0.6, h - 0.008), (r * 0.9, h - 0.01), (r - 0.01, h - 0.03)]
        pieces.append((*lathe(plate, 48), 1))
    for i in range(rim.spokes):
        angle = 2 * np.pi * i / rim.spokes + np.pi / 2
        shifts = (-rim.twin, rim.twin) if rim.twin else (0.0,)
        for shift in shifts:
            if rim.disc:  # dark holes in a plate
                a = ring(0.0, r * 0.74, 0.5 * rim.outer)
                points = np.stack([a[:, 0], np.full(len(a), h - 0.0035), a[:, 1]], axis=1)
                quads = np.array([[0, k, k + 1, k + 2] for k in range(1, len(a) - 2, 2)])
            else:
                inner, outer = rim.inner / 2, rim.outer / 2
                base = [(0.035, inner, h - 0.02), (r - 0.012, outer, h - 0.012)]
                points = np.array(
                    [
                        (s * wd + shift * q, depth, rr)
                        for (rr, wd, y), q in zip(base, (0.45, 1.0), strict=True)
                        for s, depth in ((-1, y - 0.035), (-0.6, y), (0.6, y), (1, y - 0.035))
                    ]
                )
                points[4:, 0] += rim.twist
                quads = np.array([[k, k + 1, k + 5, k + 4] for k in range(3)])
            c, s = np.cos(angle), np.sin(angle)
            turned = points.copy()
            turned[:, 0] = points[:, 0] * s + points[:, 2] * c
            turned[:, 2] = -points[:, 0] * c + points[:, 2] * s
            pieces.append((turned, quads, 2 if rim.disc else 1))
    return join(pieces, "wheel")


def build_mirror() -> Part:
    """One door mirror about its centre, for the left side; slots: 0 paint, 1 dark."""
    shell, shell_faces = superellipsoid((0.13, 0.23, 0.15), 0.55)
    shell[:, 0] *= np.where(shell[:, 0] < 0, 0.45, 1.0)
    slots = np.where(shell[shell_faces][:, :, 0].mean(1) < -0.018, 1, 0)
    foot, foot_faces = superellipsoid((0.07, 0.17, 0.04), 0.6, 8)
    part = join([(shell, shell_faces, 0), (foot + np.array([0.0, -0.13, -0.05]), foot_faces, 1)], "mirror")
    part.slots[: len(slots)] = slots
    return part


def join(pieces: list[tuple[Array, Ints, int]], name: str) -> Part:
    """Put meshes together, each with its material slot."""
    offset, vertices, faces, slots = 0, [], [], []
    for points, quads, slot in pieces:
        vertices.append(points)
        faces.append(quads + offset)
        slots.append(np.full(len(quads), slot))
        offset += len(points)
    return Part(np.concatenate(vertices), np.concatenate(faces), np.concatenate(slots), name=name)
