"""One design as Blender objects, and the paint shop that dresses it for each photo."""

from __future__ import annotations

import math
import random
from typing import Any

import bpy
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .body import Design, Part, Sheets, build_body, build_mirror, build_wheel
from .materials import Colour, Nodes, image_from, mesh_object, plain, principled
from .shapes import Array, superellipsoid

# name, linear colour, metallic share, weight: roughly what stands in a car park
PAINTS: tuple[tuple[str, Colour, float, float], ...] = (
    ("white", (0.80, 0.80, 0.78), 0.0, 17),
    ("pearl", (0.70, 0.69, 0.66), 0.15, 5),
    ("black", (0.008, 0.008, 0.009), 0.1, 15),
    ("dark grey", (0.045, 0.048, 0.052), 0.5, 11),
    ("grey", (0.16, 0.165, 0.17), 0.5, 9),
    ("silver", (0.45, 0.46, 0.47), 0.7, 12),
    ("dark blue", (0.010, 0.025, 0.085), 0.4, 7),
    ("blue", (0.02, 0.11, 0.36), 0.4, 6),
    ("light blue", (0.20, 0.36, 0.50), 0.3, 2),
    ("red", (0.42, 0.012, 0.014), 0.1, 8),
    ("dark red", (0.11, 0.006, 0.012), 0.4, 3),
    ("green", (0.02, 0.08, 0.045), 0.4, 3),
    ("olive", (0.10, 0.11, 0.05), 0.3, 1.5),
    ("beige", (0.42, 0.36, 0.26), 0.3, 3),
    ("brown", (0.085, 0.045, 0.025), 0.4, 3),
    ("orange", (0.62, 0.17, 0.02), 0.2, 1.5),
    ("yellow", (0.70, 0.48, 0.04), 0.0, 1.5),
)


PLATES = 64
"""How many different number plates there are."""


class Car:
    """One design as Blender objects, repainted for each photo."""

    def __init__(self, design: Design) -> None:
        self.design = design
        part, sheets, field = build_body(design)
        self.paint = self._paint("paint", sheets)
        self.trim_paint = self._paint("mirror paint", None)
        dark = plain("dark", (0.008, 0.008, 0.008), 0.8)
        gloss = plain("gloss", (0.01, 0.01, 0.01), 0.15)
        self.tyre = plain("tyre", (0.012, 0.012, 0.013), 0.75)
        self.rims = {
            "silver": plain("silver rim", (0.56, 0.57, 0.58), 0.28, 0.85),
            "gloss": plain("dark rim", (0.045, 0.046, 0.05), 0.3, 0.6),
        }
        self.body = mesh_object(part, [self.paint, dark])
        wheel = build_wheel(design)
        track = design.width / 2 - design.tyre[1] / 2 - 0.012
        self.wheels = []
        for x in design.axles:
            for side in (1, -1):
                thing = mesh_object(wheel, [self.tyre, self.rims[design.rim.colour], dark])
                thing.location = (x, side * track, design.tyre[0])
                thing.rotation_euler = (0, 0, 0 if side > 0 else math.pi)
                self.wheels.append(thing)
        mirror = build_mirror()
        x, z = design.mirror
        reach = float(field.cabin_half_width(np.array([x]), np.array([z]))[0]) + 0.20
        for side in (1, -1):
            thing = mesh_object(mirror, [self.trim_paint, gloss])
            thing.location, thing.scale = (x, side * reach, z + 0.02), (1, side, 1)
        if design.rails:
            self._rails(plain("rail", (0.5, 0.5, 0.5) if design.rails == "silver" else (0.02,) * 3, 0.35, 0.5))
        self.plates = [self._plate(part, front) for front in (True, False)]
        self.corners = np.array(
            [
                (x, y, z)
                for x in (field.x0, field.x1)
                for y in (-design.width / 2, design.width / 2)
                for z in (0.0, sheets.top - 0.15)
            ]
        )

    def _paint(self, name: str, sheets: Sheets | None) -> bpy.types.Material:
        material = bpy.data.materials.new(name)
        bsdf = principled(material)
        n = Nodes(material.node_tree)
        paint, metal, rough = n.rgb("paint", (0.5, 0.5, 0.5)), n.value("metal", 0.3), n.value("rough", 0.35)
        mask: Any = 1.0
        colour, roughness, metallic = paint, rough, metal
        if sheets is not None:
            first, second = sheets.arrays()
            tex_a = n.add("ShaderNodeTexImage", image=image_from("sheet a", first))
            tex_b = n.add("ShaderNodeTexImage", image=image_from("sheet b", second, linear=True))
            parts = n.add("ShaderNodeSeparateColor")
            n.link(tex_b.outputs[0], parts.inputs[0])
            mask = tex_a.outputs[1]
            colour = n.mix(mask, tex_a.outputs[0], paint)
            roughness = n.mix_number(mask, parts.outputs[0], rough)
            metallic = n.mix_number(mask, parts.outputs[1], metal)
            n.link(tex_a.outputs[0], bsdf.inputs["Emission Color"])
            glow = n.math("MULTIPLY", parts.outputs[2], n.value("glow", 1.0))
            n.link(glow, bsdf.inputs["Emission Strength"])
        spot = n.add("ShaderNodeNewGeometry")
        height = n.add("ShaderNodeSeparateXYZ")
        n.link(spot.outputs["Position"], height.inputs[0])
        low = n.stretch(height.outputs[2], 0.95, 0.15)
        flat = n.add("ShaderNodeCombineXYZ")
        n.link(n.math("ADD", height.outputs[0], height.outputs[1]), flat.inputs[0])
        n.link(height.outputs[2], flat.inputs[1])
        cloud = n.stretch(n.noise(flat.outputs[0], 4.0), 0.3, 0.75)
        dirt = n.math("MULTIPLY", n.math("MULTIPLY", low, cloud), n.value("dirt", 0.0), clamp=True)
        n.link(n.mix(dirt, colour, n.rgb("mud", (0.16, 0.13, 0.10))), bsdf.inputs["Base Color"])
        n.put(n.mix_number(dirt, roughness, 0.85), bsdf.inputs["Roughness"])
        n.put(metallic, bsdf.inputs["Metallic"])
        n.put(n.math("MULTIPLY", mask, n.math("SUBTRACT", 1.0, dirt)), bsdf.inputs["Coat Weight"])
        bsdf.inputs["Coat Roughness"].default_value = 0.04
        return material

    def _rails(self, material: bpy.types.Material) -> None:
        x0, x1, y, z = self.design.rail_span
        bar, faces = superellipsoid((x1 - x0, 0.035, 0.03), 0.35)
        for side in (1, -1):
            bow = 0.04 * (np.abs(bar[:, 0]) / (x1 - x0) * 2) ** 2
            part = Part(bar - np.outer(bow, (0, 0, 1)), faces, np.zeros(len(faces), dtype=np.int64), name="rail")
            thing = mesh_object(part, [material])
            thing.location = ((x0 + x1) / 2, side * y, z + 0.02)

    def _plate(self, part: Part, front: bool) -> bpy.types.Object:
        z = self.design.plates[0 if front else 1]
        near = (np.abs(part.vertices[:, 1]) < 0.24) & (np.abs(part.vertices[:, 2] - z) < 0.05)
        xs = part.vertices[near][:, 0]
        x = float(xs.max() + 0.012) if front else float(xs.min() - 0.012)
        vertices = np.array([(0, -0.26, -0.056), (0, 0.26, -0.056), (0, 0.26, 0.056), (0, -0.26, 0.056)])
        uvs = np.array([[(0, 0), (1, 0), (1, 1), (0, 1)]], dtype=float)
        material = bpy.data.materials.new("plate")
        bsdf = principled(material)
        n = Nodes(material.node_tree)
        texture = n.add("ShaderNodeTexImage", image=plate_images())
        place = n.add("ShaderNodeMapping", name="place")
        n.link(n.add("ShaderNodeTexCoord").outputs["UV"], place.inputs[0])
        place.inputs["Scale"].default_value = (1.0, 1 / PLATES, 1.0)
        n.link(place.outputs[0], texture.inputs[0])
        n.link(texture.outputs[0], bsdf.inputs["Base Color"])
        bsdf.inputs["Roughness"].default_value = 0.4
        plate = mesh_object(
            Part(vertices, np.array([[0, 1, 2, 3]]), np.zeros(1, dtype=np.int64), uvs, name="plate"),
            [material],
            False,
        )
        plate.location = (x, 0, z)
        plate.rotation_euler = (0, 0, 0 if front else math.pi)
        return plate

    def dress(self, rng: random.Random, dusk: bool) -> None:
        """Choose paint, plate, dirt and lights of one photo."""
        _, colour, metal, _ = rng.choices(PAINTS, [p[3] for p in PAINTS])[0]
        gain = rng.uniform(0.85, 1.12)
        shade = tuple(min(0.85, max(0.004, c * gain * rng.uniform(0.93, 1.07))) for c in colour)
        metal = metal * rng.uniform(0.6, 1.2) if rng.random() < 0.8 else 0.0
        dirt = rng.choice((0.0, 0.0, 0.1, 0.25, rng.uniform(0.3, 0.9)))
        glow = rng.uniform(4, 9) if rng.random() < (0.6 if dusk else 0.15) else rng.uniform(0.3, 1.0)
        for material in (self.paint, self.trim_paint):
            nodes = material.node_tree.nodes
            nodes["paint"].outputs[0].default_value = (*shade, 1)
            nodes["metal"].outputs[0].default_value = metal
            nodes["rough"].outputs[0].default_value = rng.uniform(0.25, 0.4)
            nodes["dirt"].outputs[0].default_value = dirt
        self.paint.node_tree.nodes["glow"].outputs[0].default_value = glow
        number = rng.randrange(PLATES)
        for plate in self.plates:
            nodes = plate.data.materials[0].node_tree.nodes
            nodes["place"].inputs["Location"].default_value = (0, number / PLATES, 0)
        for wheel in self.wheels:
            wheel.rotation_euler[1] = rng.uniform(0, 6.28)
        steer = rng.uniform(-0.35, 0.35) if rng.random() < 0.35 else rng.uniform(-0.03, 0.03)
        for wheel, turn in zip(self.wheels[:2], (0.0, math.pi), strict=True):
            wheel.rotation_euler[2] = turn + steer


def plate_images() -> bpy.types.Image:
    """All number plates in one picture, the same for every design."""
    if "plates" in bpy.data.images:
        return bpy.data.images["plates"]
    rng = random.Random(11)  # noqa: S311 (not for secrets)
    return image_from("plates", np.concatenate([plate_image(rng) for _ in range(PLATES)]))


def plate_image(rng: random.Random) -> Array:
    """Draw a number plate with a made-up number."""
    base = rng.choice(((240, 240, 236), (240, 240, 236), (235, 200, 60), (225, 228, 232)))
    image = Image.new("RGBA", (260, 56), (*base, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((1, 1, 258, 54), outline=(30, 30, 30, 255), width=2)
    if rng.random() < 0.5:
        draw.rectangle((2, 2, 24, 53), fill=(20, 50, 150, 255))
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(5))
    text = f"{letters[:2]} {rng.randint(10, 99)} {letters[2:]}"
    draw.text((140, 28), text, fill=(20, 20, 24, 255), anchor="mm", font=ImageFont.load_default(42))
    return np.asarray(image, dtype=np.float32)[::-1] / 255
