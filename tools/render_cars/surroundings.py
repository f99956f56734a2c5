"""What stands and lies round the car: grounds, walls, houses, trees, hedges, poles and hills."""

from __future__ import annotations

import random

import bpy
import numpy as np
from PIL import Image, ImageDraw

from .body import Part
from .materials import Colour, Nodes, image_from, matt, mesh_object, principled, tinted
from .shapes import Array, lathe


def build_grounds() -> dict[str, bpy.types.Material]:
    """The ground materials; each has a `tone` and a `place` that photos vary."""
    # fine scale, dark colour, light colour, patch colour
    table: dict[str, tuple[float, Colour, Colour, Colour]] = {
        "asphalt": (5.0, (0.045, 0.046, 0.05), (0.14, 0.14, 0.14), (0.07, 0.07, 0.075)),
        "concrete": (2.5, (0.24, 0.23, 0.215), (0.34, 0.33, 0.31), (0.20, 0.19, 0.18)),
        "gravel": (4.0, (0.13, 0.12, 0.10), (0.40, 0.37, 0.32), (0.22, 0.20, 0.17)),
        "snow": (1.5, (0.62, 0.65, 0.70), (0.80, 0.82, 0.85), (0.50, 0.52, 0.56)),
        "grass": (3.0, (0.022, 0.036, 0.013), (0.075, 0.10, 0.04), (0.085, 0.09, 0.04)),
        "wet": (5.0, (0.025, 0.026, 0.03), (0.06, 0.06, 0.062), (0.035, 0.035, 0.04)),
        "paving": (3.0, (0.16, 0.145, 0.135), (0.26, 0.24, 0.22), (0.15, 0.14, 0.13)),
    }
    grounds = {}
    for name, (scale, dark, light, patch) in table.items():
        material = bpy.data.materials.new(name)
        bsdf = principled(material) if name == "wet" else matt(material)
        n = Nodes(material.node_tree)
        spot = n.add("ShaderNodeNewGeometry")
        place = n.add("ShaderNodeMapping", name="place")
        n.link(spot.outputs["Position"], place.inputs[0])
        where = place.outputs[0]
        grain = n.math("ADD", n.noise(where, scale, 0.7), n.noise(where, scale * 0.29, 0.9))
        fine = n.stretch(grain, 0.7, 1.3)
        broad = n.stretch(n.noise(where, 0.5), 0.42, 0.62)
        colour = n.mix(n.math("MULTIPLY", broad, 0.7), n.mix(fine, dark, light), patch)
        if name in ("paving", "concrete"):
            brick = n.add("ShaderNodeTexBrick")
            n.link(where, brick.inputs["Vector"])
            brick.inputs["Scale"].default_value = 1.0
            size = (0.24, 0.12) if name == "paving" else (2.5, 2.5)
            brick.inputs["Brick Width"].default_value, brick.inputs["Row Height"].default_value = size
            brick.inputs["Mortar Size"].default_value = 0.008 if name == "paving" else 0.015
            colour = n.mix(n.math("MULTIPLY", brick.outputs[1], 0.7), colour, (0.05, 0.05, 0.045))
        tone = n.value("tone", 1.0)
        shade = n.add("ShaderNodeVectorMath", operation="SCALE")
        n.link(colour, shade.inputs[0])
        n.link(tone, shade.inputs["Scale"])
        n.link(shade.outputs[0], bsdf.inputs[0])
        if name == "wet":
            puddle = n.stretch(n.noise(where, 0.8), 0.45, 0.6)
            n.link(n.mix_number(puddle, 0.55, 0.06), bsdf.inputs["Roughness"])
            bsdf.inputs["Specular IOR Level"].default_value = 0.5
        grounds[name] = material
    return grounds


def facade(kind: str, rng: random.Random) -> tuple[Array, float, float]:
    """Draw a wall (RGBA, lowest row first) and give its width and height in metres."""
    width, height = {
        "house": (11, 6), "plaster": (12, 6.5), "brick": (16, 3.2), "garage": (12, 3.4), "metal": (20, 6),
        "office": (24, 9), "stone": (18, 2.2), "fence": (20, 1.8),
    }[kind]  # fmt: skip
    k = 40
    size = (int(width * k), int(height * k))
    noise = np.random.default_rng(rng.randint(0, 9999))
    base = {
        "house": (176, 164, 148), "plaster": (205, 198, 182), "brick": (150, 92, 72),
        "garage": (190, 186, 178), "metal": (150, 160, 168), "office": (170, 172, 172),
        "stone": (150, 144, 132), "fence": (136, 108, 80),
    }[kind]  # fmt: skip
    image = Image.new("RGB", size, base)
    draw = ImageDraw.Draw(image)
    if kind in ("brick", "house", "stone"):
        rows, cols = (0.085, 0.25) if kind != "stone" else (0.24, 0.5)
        for r in range(int(height / rows) + 1):
            for c in range(-1, int(width / cols) + 1):
                x, y = (c + 0.5 * (r % 2)) * cols * k, r * rows * k
                tone = noise.uniform(0.78, 1.12)
                fill = tuple(int(min(255, b * tone)) for b in base)
                draw.rectangle((x, y, x + cols * k - 1.5, y + rows * k - 1.2), fill=fill)
    if kind in ("metal", "fence"):
        for x in range(0, size[0], 6 if kind == "metal" else 5):
            tone = noise.uniform(0.75, 1.1) if kind == "fence" else 0.86 + 0.2 * ((x // 6) % 2)
            draw.rectangle((x, 0, x + 4, size[1]), fill=tuple(int(b * tone) for b in base))
        if kind == "fence":
            for y in (0.3, 1.4):
                draw.rectangle((0, y * k, size[0], y * k + 4), fill=(80, 62, 46))
    if kind in ("house", "plaster", "office"):
        step, wide, tall = (2.6, 1.1, 1.4) if kind != "office" else (3.0, 2.6, 1.7)
        for storey in range(int(height // 3)):
            for c in range(int(width / step)):
                x, y = (c + 0.5) * step * k - wide * k / 2, height * k - (storey * 3 + 2.4) * k
                if storey == 0 and c == 1 and kind != "office":
                    draw.rectangle((x, y + 6, x + 1.0 * k, size[1]), fill=(82, 60, 44))
                    continue
                draw.rectangle((x - 3, y - 3, x + wide * k + 3, y + tall * k + 3), fill=(222, 220, 214))
                draw.rectangle((x, y, x + wide * k, y + tall * k), fill=(52, 60, 70))
                draw.line((x + wide * k / 2, y, x + wide * k / 2, y + tall * k), fill=(222, 220, 214), width=3)
    if kind in ("garage", "metal"):
        for c in range(3):
            x = (0.5 + c * (width - 0.5) / 3) * k
            wide, tall = (2.9, 2.3) if kind == "garage" else (4.2, 4.0)
            top = size[1] - tall * k
            draw.rectangle((x, top, x + wide * k, size[1]), fill=(214, 213, 208) if c % 2 else (118, 124, 128))
            for r in range(1, 6):
                y = top + tall * k * r / 6
                draw.line((x, y, x + wide * k, y), fill=(96, 96, 94), width=2)
    grime = noise.normal(1.0, 0.03, (size[1], size[0], 1)) * np.linspace(1.0, 0.86, size[1])[:, None, None]
    pixels = np.clip(np.asarray(image, dtype=np.float32) / 255 * grime, 0, 1)
    return np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=2)[::-1], width, height


def build_props() -> dict[str, list[bpy.types.Object]]:
    """Build the walls, houses, trees, hedges, poles and hills once, hidden."""
    rng = random.Random(7)  # noqa: S311 (not for secrets)
    noise = np.random.default_rng(7)
    props: dict[str, list[bpy.types.Object]] = {}
    roof = tinted("roof", colour=(0.16, 0.08, 0.06))
    for kind in ("house", "plaster", "brick", "garage", "metal", "office", "stone", "fence"):
        pixels, width, height = facade(kind, rng)
        material = tinted(kind, image_from(kind, pixels))
        w, deep = width / 2, 0.15 if kind in ("brick", "stone", "fence") else 6.0
        v = [(0.0, -w, 0.0), (0.0, w, 0.0), (0.0, w, height), (0.0, -w, height)]
        v += [(-deep, y, z) for _, y, z in v]
        faces = [(0, 1, 2, 3), (1, 5, 6, 2), (4, 0, 3, 7), (3, 2, 6, 7)]
        turn = [(0, 0), (1, 0), (1, 1), (0, 1)]
        side = [(0, 0), (0.3, 0), (0.3, 1), (0, 1)] if deep > 1 else [(0, 0)] * 4
        uvs = [turn, side, side, [(0.01, 0.99)] * 4]
        slots = [0, 0, 0, 0]
        if kind in ("house", "plaster"):
            v += [(-deep / 2, -w, height + 2.4), (-deep / 2, w, height + 2.4), (0.4, -w - 0.3, height - 0.2),
                  (0.4, w + 0.3, height - 0.2)]  # fmt: skip
            faces += [(10, 11, 9, 8), (7, 8, 9, 6), (2, 6, 9, 9), (3, 8, 7, 7)]
            uvs += [turn, turn, [(0.01, 0.99)] * 4, [(0.01, 0.99)] * 4]
            slots += [1, 1, 0, 0]
        mesh = bpy.data.meshes.new(kind)
        mesh.from_pydata(v, [], [tuple(dict.fromkeys(f)) for f in faces])
        layer = mesh.uv_layers.new(name="uv")
        flat = [uv for f, us in zip(faces, uvs, strict=True) for uv in us[: len(dict.fromkeys(f))]]
        layer.uv.foreach_set("vector", np.array(flat, dtype=np.float32).ravel())
        for m in (material, roof):
            mesh.materials.append(m)
        mesh.polygons.foreach_set("material_index", np.array(slots, dtype=np.int32))
        mesh.update()
        props[kind] = [linked(mesh, kind) for _ in range(2)]
    leaf = tinted("leaf", colour=(0.075, 0.13, 0.035))
    bark = tinted("bark", colour=(0.09, 0.07, 0.055))
    trees = []
    for _ in range(4):
        blobs = [(noise.normal(0, 0.75, 3) + np.array([0, 0, 3.6]), noise.uniform(0.7, 1.3)) for _ in range(9)]
        trees.append(foliage(blobs, 6000, 0.085, noise, leaf, bark))
    props["tree"] = [linked(trees[i % 4], "tree") for i in range(14)]
    blobs = [(np.array([0.0, y, 0.65]), 0.75) for y in np.linspace(-5, 5, 22)]
    hedge = foliage(blobs, 9000, 0.06, noise, leaf, None)
    props["hedge"] = [linked(hedge, "hedge") for _ in range(2)]
    pole, pole_faces = lathe([(0.07, 0.0), (0.05, 6.0)], 12)
    pole = pole[:, [0, 2, 1]]
    grey = tinted("pole", colour=(0.2, 0.2, 0.2))
    part = Part(pole, pole_faces, np.zeros(len(pole_faces), dtype=np.int64), name="pole")
    props["pole"] = [mesh_object(part, [grey]) for _ in range(2)]
    angles = np.linspace(0, 2 * np.pi, 241)
    wave = sum(noise.uniform(0.3, 1) / f * np.sin(f * angles + noise.uniform(0, 6)) for f in (2, 3, 5, 9, 17, 31))
    crest = 7 + 4 * wave + noise.normal(0, 0.25, len(angles))
    base = np.stack([150 * np.cos(angles), 150 * np.sin(angles)], axis=1)
    points = np.concatenate([np.column_stack([base, np.full(241, -1.0)]), np.column_stack([base * 1.3, crest])])
    quads = np.array([[i, i + 1, i + 242, i + 241] for i in range(240)])
    green = tinted("hills", colour=(0.10, 0.13, 0.12))
    props["hills"] = [mesh_object(Part(points, quads, np.zeros(240, dtype=np.int64), name="hills"), [green])]
    return props


def linked(mesh: bpy.types.Mesh, name: str) -> bpy.types.Object:
    """Another object that shares a mesh."""
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def foliage(
    blobs: list[tuple[Array, float]],
    count: int,
    size: float,
    noise: np.random.Generator,
    leaf: bpy.types.Material,
    bark: bpy.types.Material | None,
) -> bpy.types.Mesh:
    """Scatter leaves in balls, with a trunk below if there is bark."""
    which = noise.integers(0, len(blobs), count)
    centre = np.array([blobs[i][0] for i in which])
    radius = np.array([blobs[i][1] for i in which])
    way = noise.normal(size=(count, 3))
    way /= np.linalg.norm(way, axis=1)[:, None]
    centre = centre + way * (radius * noise.uniform(0.55, 1.0, count) ** 0.5)[:, None]
    a, b = noise.normal(size=(2, count, 3)) * size
    points = np.stack([centre - a - b, centre + a - b, centre + a + b, centre - a + b], axis=1).reshape(-1, 3)
    faces = np.arange(4 * count).reshape(-1, 4)
    slots = np.zeros(count, dtype=np.int64)
    materials = [leaf]
    if bark is not None:
        trunk, trunk_faces = lathe([(0.20, 0.0), (0.13, 2.4), (0.07, 3.6)], 10)
        points_t = trunk[:, [0, 2, 1]]
        faces = np.concatenate([faces, trunk_faces + len(points)])
        points = np.concatenate([points, points_t])
        slots = np.concatenate([slots, np.ones(len(trunk_faces), dtype=np.int64)])
        materials.append(bark)
    thing = mesh_object(Part(points, faces, slots, name="foliage"), materials, False)
    mesh = thing.data
    bpy.data.objects.remove(thing)
    return mesh
