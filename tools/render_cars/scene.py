"""The stage: world, ground, surroundings, sun and camera, arranged anew for each photo."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from .materials import Colour, Nodes, plain, quad
from .shapes import Array
from .surroundings import build_grounds, build_props


@dataclass
class Shot:
    """The choices of one photo that the finishing step needs too."""

    dusk: bool
    exposure: float
    frame: tuple[float, float, float, float]  # the box round the car, in pixels of the photo


class Stage:
    """World, ground, surroundings, sun and camera, arranged anew for each photo."""

    def __init__(self) -> None:
        self.scene = bpy.context.scene
        self._world()
        self.sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
        self.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        for thing in (self.sun, self.camera):
            self.scene.collection.objects.link(thing)
        self.scene.camera = self.camera
        self.grounds = build_grounds()
        self.far_ground = quad("far ground", 400.0, -0.02)
        self.near_ground = quad("near ground", 1.0, 0.0)
        for ground in (self.far_ground, self.near_ground):
            ground.data.materials.append(self.grounds["asphalt"])
        self.props = build_props()
        self.lines = [quad(f"line {i}", 1.0, 0.004) for i in range(6)]
        white = plain("road paint", (0.55, 0.55, 0.52), 0.7)
        for line in self.lines:
            line.data.materials.append(white)

    def _world(self) -> None:
        world = bpy.data.worlds.new("world")
        self.scene.world = world
        world.use_nodes = True
        n = Nodes(world.node_tree)
        background = world.node_tree.nodes["Background"]
        where = n.add("ShaderNodeTexCoord")
        split = n.add("ShaderNodeSeparateXYZ")
        n.link(where.outputs["Generated"], split.inputs[0])
        up = n.stretch(split.outputs[2], 0.0, 0.55)
        sky = n.mix(n.math("POWER", up, 0.6), n.rgb("horizon", (0.7, 0.8, 0.9)), n.rgb("zenith", (0.1, 0.25, 0.6)))
        ceiling = n.add("ShaderNodeVectorMath", operation="SCALE")  # clouds lie on a plane overhead
        n.link(where.outputs["Generated"], ceiling.inputs[0])
        high = n.math("ADD", n.math("MAXIMUM", split.outputs[2], 0.0), 0.18)
        n.link(n.math("DIVIDE", 1.0, high), ceiling.inputs["Scale"])
        flat = n.add("ShaderNodeMapping", name="cloud place")
        n.link(ceiling.outputs[0], flat.inputs[0])
        clouds = n.stretch(n.noise(flat.outputs[0], 1.6), 0.45, 0.66)
        cover = n.math("MULTIPLY", clouds, n.value("cover", 0.5))
        sky = n.mix(cover, sky, n.rgb("cloud", (0.9, 0.9, 0.9)))
        below = n.math("LESS_THAN", split.outputs[2], -0.01)
        n.link(n.mix(below, sky, n.rgb("floor", (0.15, 0.15, 0.15))), background.inputs[0])
        n.link(n.value("strength", 1.0), background.inputs[1])
        world.cycles.sampling_method = "MANUAL"
        world.cycles.sample_map_resolution = 128

    def set_world(self, name: str, value: Any) -> None:
        """Set a named number or colour of the sky."""
        self.scene.world.node_tree.nodes[name].outputs[0].default_value = value

    def arrange(self, rng: random.Random, corners: Array) -> Shot:
        """Set up light, ground, surroundings and camera for one photo."""
        dusk = self._light(rng)
        azimuth, distance, frame = self._camera(rng, corners)
        self._ground(rng)
        self._surroundings(rng, azimuth, distance)
        return Shot(dusk, rng.gauss(0.0, 0.28), frame)

    def _light(self, rng: random.Random) -> bool:
        kind = rng.choices(("clear", "hazy", "overcast", "dusk"), (38, 24, 28, 10))[0]
        tint = rng.uniform(-0.04, 0.04)
        looks: dict[str, tuple[Colour, Colour, Colour, float, float, float, float]] = {
            # horizon, zenith, cloud, cover, sky strength, sun strength, sun size
            "clear": (
                (0.55, 0.68, 0.85),
                (0.10, 0.24, 0.58),
                (0.95, 0.95, 0.95),
                rng.random(),
                0.9,
                4.0,
                0.6,
            ),
            "hazy": ((0.72, 0.74, 0.76), (0.30, 0.42, 0.60), (0.85, 0.85, 0.85), 0.9, 1.0, 2.2, 6.0),
            "overcast": ((0.62, 0.64, 0.66), (0.60, 0.63, 0.68), (0.80, 0.81, 0.83), 1.0, 1.15, 0.25, 40.0),
            "dusk": ((0.85, 0.48, 0.28), (0.10, 0.14, 0.30), (0.60, 0.38, 0.34), rng.random(), 0.5, 1.3, 2.0),
        }
        horizon, zenith, cloud, cover, strength, sun, size = looks[kind]
        self.set_world("horizon", (horizon[0] + tint, horizon[1], horizon[2] - tint, 1))
        self.set_world("zenith", (*zenith, 1))
        self.set_world("cloud", (*cloud, 1))
        self.set_world("cover", cover)
        self.set_world("strength", strength * rng.uniform(0.85, 1.15))
        self.scene.world.node_tree.nodes["cloud place"].inputs["Location"].default_value = [
            rng.uniform(-50, 50) for _ in range(3)
        ]
        low, high = (5, 14) if kind == "dusk" else (20, 68)
        elevation, around = math.radians(rng.uniform(low, high)), rng.uniform(0, 2 * math.pi)
        self.sun.rotation_euler = (math.pi / 2 - elevation, 0, around)
        self.sun.data.energy = sun * rng.uniform(0.75, 1.2)
        self.sun.data.angle = math.radians(size)
        warm = 0.55 if kind == "dusk" else rng.uniform(0.84, 0.97)
        self.sun.data.color = (1.0, 0.5 + 0.5 * warm, warm)
        return kind == "dusk"

    def _camera(self, rng: random.Random, corners: Array) -> tuple[float, float, tuple[float, float, float, float]]:
        azimuth = rng.uniform(0, 2 * math.pi)
        height = rng.choice((rng.uniform(0.8, 1.3), rng.uniform(1.3, 1.8), rng.uniform(1.4, 2.5)))
        lens = rng.uniform(26, 62)
        goal = rng.uniform(0.62, 0.97) if rng.random() < 0.9 else rng.uniform(0.97, 1.12)
        middle = np.array([0.0, 0.0, corners[:, 2].max() * 0.48])
        aim = middle + np.array([0, 0, rng.uniform(-0.10, 0.16)])
        shift = rng.gauss(0.0, 0.05 if goal < 0.9 else 0.03)
        low, high = 2.2, 40.0
        for _ in range(30):
            distance = (low + high) / 2
            eye = np.array([distance * math.cos(azimuth), distance * math.sin(azimuth), height])
            ahead = (aim - eye) / np.linalg.norm(aim - eye)
            right = np.cross(ahead, (0, 0, 1))
            right /= np.linalg.norm(right)
            depth = (corners - eye) @ ahead
            across = (corners - eye) @ right / np.maximum(depth, 0.1) * lens / 36
            rise = (corners - eye) @ np.cross(right, ahead) / np.maximum(depth, 0.1) * lens / 36
            size = max(float(np.ptp(across)), float(np.ptp(rise)) / 0.75 * 1.05)
            wrong_side = bool(depth.min() < 0.8)
            low, high = (distance, high) if (size > goal or wrong_side) else (low, distance)
        middle_x, middle_y = (across.max() + across.min()) / 2, (rise.max() + rise.min()) / 2
        camera = self.camera.data
        camera.lens, camera.sensor_width = lens, 36.0
        camera.shift_x = middle_x + shift
        camera.shift_y = middle_y * 0.7 + rng.gauss(0.0, 0.02)
        camera.clip_start = 0.2
        camera.dof.use_dof = True
        camera.dof.focus_distance = distance - 0.8
        camera.dof.aperture_fstop = rng.uniform(1.4, 5.0)
        self.camera.location = eye
        tilt = math.atan2(aim[2] - eye[2], distance)
        roll = rng.gauss(0.0, 0.012)
        self.camera.rotation_mode = "XYZ"
        self.camera.rotation_euler = (math.pi / 2 + tilt, roll, azimuth + math.pi / 2)
        x, y = (across - camera.shift_x + 0.5) * 320, 120 - (rise - camera.shift_y) * 320
        frame = (float(x.min()) - 4, float(y.min()) - 4, float(x.max()) + 4, float(y.max()) + 4)
        return azimuth, distance, frame

    def _ground(self, rng: random.Random) -> None:
        names = list(self.grounds)
        near = rng.choices(names, [26, 14, 10, 9, 9, 14, 18])[0]
        far = near if rng.random() < 0.4 else rng.choice(("grass", "grass", "gravel", "asphalt"))
        if near == "snow":
            far = "snow"
        tone = rng.uniform(0.75, 1.3)
        for ground, name in ((self.near_ground, near), (self.far_ground, far)):
            material = self.grounds[name]
            ground.data.materials[0] = material
            nodes = material.node_tree.nodes
            nodes["tone"].outputs[0].default_value = tone
            nodes["place"].inputs["Location"].default_value = [rng.uniform(-90, 90) for _ in range(3)]
            nodes["place"].inputs["Rotation"].default_value = (0, 0, rng.uniform(0, 3.14))
        wide, long = rng.choice(((5.5, 200), (8, 200), (14, 40), (30, 30), (9, 16)))
        self.near_ground.scale = (long, wide, 1)
        turn = rng.choice((0.0, 0.0, math.pi / 2, rng.uniform(0, 3.14)))
        self.near_ground.rotation_euler = (0, 0, turn)
        self.near_ground.location = (rng.uniform(-0.5, 0.5), rng.uniform(-0.8, 0.8), 0)
        lines = near in ("asphalt", "wet", "concrete") and rng.random() < 0.4
        spacing, offset = rng.uniform(2.4, 2.9), rng.uniform(-0.3, 0.3)
        for i, line in enumerate(self.lines):
            line.hide_render = not lines
            line.scale = (5.0, 0.11, 1)
            line.location = (0.0, (i - 2.5) * spacing + offset, 0.006)

    def _surroundings(self, rng: random.Random, azimuth: float, distance: float) -> None:
        for things in self.props.values():
            for thing in things:
                thing.hide_render = True
        used: dict[str, int] = {}

        def place(kind: str, around: float, away: float, face: bool = True) -> None:
            i = used.get(kind, 0)
            if i >= len(self.props[kind]):
                return
            used[kind] = i + 1
            thing = self.props[kind][i]
            thing.hide_render = False
            thing.location = (away * math.cos(around), away * math.sin(around), 0)
            turn = around + math.pi if face else rng.uniform(0, 6.28)
            thing.rotation_euler = (0, 0, turn + (rng.gauss(0, 0.12) if face else 0))
            gain = rng.uniform(0.6, 1.15)
            thing.color = (*[gain * rng.uniform(0.95, 1.05) for _ in range(3)], 1)
            if kind == "tree":
                size = rng.uniform(0.7, 1.5)
                thing.scale = (size * rng.uniform(0.8, 1.2), size, size * rng.uniform(0.8, 1.2))
                if rng.random() < 0.12:
                    thing.color = (rng.uniform(1.2, 2.4), rng.uniform(0.7, 1.0), 0.4, 1)

        behind = azimuth + math.pi
        plan = rng.choices(("wall", "street", "lot", "country"), (20, 34, 24, 22))[0]
        walls = ["house", "plaster", "brick", "garage", "metal", "office", "stone", "fence"]
        if plan == "wall":
            place(rng.choice(walls), behind + rng.gauss(0, 0.12), rng.uniform(3.9, 6.5))
        elif plan == "street":
            kinds = rng.sample(walls, 3)
            away, tilt = rng.uniform(6.5, 13), rng.gauss(0, 0.2)
            for kind, step in zip(kinds, (-0.75, 0.0, 0.75), strict=True):
                if rng.random() < 0.85:
                    place(kind, behind + step + tilt, away / math.cos(step) * rng.uniform(0.95, 1.15))
            for _ in range(rng.randint(0, 4)):
                place("tree", behind + rng.uniform(-0.9, 0.9), rng.uniform(5.5, 16), False)
        elif plan == "lot":
            for kind in rng.sample(walls, 3):
                place(kind, behind + rng.uniform(-0.8, 0.8), rng.uniform(18, 40))
            for _ in range(rng.randint(2, 7)):
                place("tree", behind + rng.uniform(-0.8, 0.8), rng.uniform(10, 40), False)
            for _ in range(rng.randint(0, 2)):
                place("pole", behind + rng.uniform(-0.6, 0.6), rng.uniform(7, 20), False)
        else:
            for _ in range(rng.randint(3, 9)):
                place("tree", behind + rng.uniform(-1.0, 1.0), rng.uniform(9, 55), False)
            if rng.random() < 0.5:
                place("fence", behind + rng.uniform(-0.4, 0.4), rng.uniform(6, 14))
        if rng.random() < 0.4:
            place("hedge", behind + rng.gauss(0, 0.2), rng.uniform(4.5, 12))
        for _ in range(rng.randint(1, 3)):  # seen only as reflections
            place(rng.choice(walls), azimuth + rng.uniform(-1.3, 1.3), distance + rng.uniform(5, 16))
        for _ in range(rng.randint(0, 3)):
            place("tree", azimuth + rng.uniform(-1.4, 1.4), distance + rng.uniform(3, 14), False)
        hills = self.props["hills"][0]
        hills.hide_render = rng.random() < 0.25
        hills.rotation_euler = (0, 0, rng.uniform(0, 6.28))
        hills.scale = (1, 1, rng.uniform(0.3, 1.3))
        hills.color = (*[rng.uniform(0.7, 1.2) for _ in range(3)], 1)
