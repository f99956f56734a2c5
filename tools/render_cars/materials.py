"""Shorthand for Blender materials, pictures and meshes."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from .body import Part
from .shapes import Array

Colour = tuple[float, float, float]


def principled(material: bpy.types.Material) -> Any:
    """Return the Principled node of a new material."""
    material.use_nodes = True
    return material.node_tree.nodes["Principled BSDF"]


def matt(material: bpy.types.Material) -> Any:
    """Give a new material a plain diffuse surface, which renders fastest, and return its node."""
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.remove(tree.nodes["Principled BSDF"])
    node = tree.nodes.new("ShaderNodeBsdfDiffuse")
    tree.links.new(node.outputs[0], tree.nodes["Material Output"].inputs[0])
    return node


def plain(name: str, colour: Colour, rough: float, metal: float = 0.0, coat: float = 0.0) -> bpy.types.Material:
    """A material of one colour."""
    material = bpy.data.materials.new(name)
    node = principled(material)
    node.inputs["Base Color"].default_value = (*colour, 1)
    node.inputs["Roughness"].default_value = rough
    node.inputs["Metallic"].default_value = metal
    node.inputs["Coat Weight"].default_value = coat
    return material


def image_from(name: str, pixels: Array, linear: bool = False) -> bpy.types.Image:
    """Make a Blender image of an RGBA array whose first row is the lowest."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new(name, width, height, alpha=True, is_data=linear)
    image.alpha_mode = "CHANNEL_PACKED"
    image.pixels.foreach_set(np.ascontiguousarray(pixels, dtype=np.float32).ravel())
    image.pack()
    return image


def mesh_object(part: Part, materials: list[bpy.types.Material], smooth: bool = True) -> bpy.types.Object:
    """Make a Blender object of a part."""
    mesh = bpy.data.meshes.new(part.name)
    mesh.from_pydata(part.vertices.tolist(), [], part.faces.tolist())
    for material in materials:
        mesh.materials.append(material)
    mesh.polygons.foreach_set("material_index", part.slots.astype(np.int32))
    mesh.polygons.foreach_set("use_smooth", np.full(len(part.faces), smooth))
    if part.uvs is not None:
        layer = mesh.uv_layers.new(name="uv")
        layer.uv.foreach_set("vector", part.uvs.astype(np.float32).ravel())
    mesh.update()
    thing = bpy.data.objects.new(part.name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def noise_image(fall: float) -> bpy.types.Image:
    """A tileable picture of noise: mean 0.5, standard deviation 0.13; cloudier for a high `fall`."""
    name = f"noise {fall}"
    if name in bpy.data.images:
        return bpy.data.images[name]
    size = 512
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    spectrum = np.fft.fft2(np.random.default_rng(3).normal(size=(size, size)))
    wave = np.fft.ifft2(spectrum / np.maximum(f, 4 / size) ** fall * (f > 0)).real
    grey = np.clip(0.5 + 0.13 * wave / wave.std(), 0, 1)
    return image_from(name, np.stack([grey, grey, grey, np.ones_like(grey)], axis=-1), linear=True)


class Nodes:
    """A little shorthand for building node trees."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def add(self, kind: str, **settings: Any) -> Any:
        """Add a node and set its attributes."""
        node = self.tree.nodes.new(kind)
        for key, value in settings.items():
            setattr(node, key, value)
        return node

    def link(self, source: Any, target: Any) -> None:
        """Join an output to an input."""
        self.tree.links.new(source, target)

    def value(self, name: str, default: float) -> Any:
        """A named number that is set anew for each photo."""
        node = self.add("ShaderNodeValue", name=name)
        node.outputs[0].default_value = default
        return node.outputs[0]

    def rgb(self, name: str, colour: Colour) -> Any:
        """A named colour that is set anew for each photo."""
        node = self.add("ShaderNodeRGB", name=name)
        node.outputs[0].default_value = (*colour, 1)
        return node.outputs[0]

    def put(self, value: Any, socket: Any) -> None:
        """Link a socket, or set a number or colour."""
        if isinstance(value, bpy.types.NodeSocket):
            self.link(value, socket)
        elif isinstance(value, tuple):
            socket.default_value = (*value, 1)[: len(socket.default_value)]
        else:
            socket.default_value = value

    def math(self, operation: str, a: Any, b: Any = 0.0, clamp: bool = False) -> Any:
        """A math node."""
        node = self.add("ShaderNodeMath", operation=operation, use_clamp=clamp)
        self.put(a, node.inputs[0])
        self.put(b, node.inputs[1])
        return node.outputs[0]

    def mix(self, factor: Any, a: Any, b: Any) -> Any:
        """Mix two colours."""
        node = self.add("ShaderNodeMix", data_type="RGBA")
        self.put(factor, node.inputs[0])
        self.put(a, node.inputs[6])
        self.put(b, node.inputs[7])
        return node.outputs[2]

    def mix_number(self, factor: Any, a: Any, b: Any) -> Any:
        """Mix two numbers."""
        node = self.add("ShaderNodeMix", data_type="FLOAT")
        self.put(factor, node.inputs[0])
        self.put(a, node.inputs[2])
        self.put(b, node.inputs[3])
        return node.outputs[0]

    def noise(self, vector: Any, scale: float, fall: float = 1.45) -> Any:
        """Noise over the vector's x and y; a tiled picture, far cheaper than computing it."""
        place = self.add("ShaderNodeVectorMath", operation="SCALE")
        self.link(vector, place.inputs[0])
        place.inputs["Scale"].default_value = scale / 8
        node = self.add("ShaderNodeTexImage", image=noise_image(fall))
        self.link(place.outputs[0], node.inputs["Vector"])
        return node.outputs[0]

    def stretch(self, value: Any, low: float, high: float) -> Any:
        """Map low..high to 0..1, clamped."""
        node = self.add("ShaderNodeMapRange")
        self.put(value, node.inputs[0])
        node.inputs[1].default_value, node.inputs[2].default_value = low, high
        return node.outputs[0]


def tinted(name: str, source: Any = None, colour: Colour = (0.5, 0.5, 0.5)) -> bpy.types.Material:
    """A material multiplied by the object's own colour, so that one mesh serves many."""
    material = bpy.data.materials.new(name)
    bsdf = matt(material)
    n = Nodes(material.node_tree)
    info = n.add("ShaderNodeObjectInfo")
    node = n.add("ShaderNodeMix", data_type="RGBA", blend_type="MULTIPLY")
    node.inputs[0].default_value = 1.0
    if source is not None:
        n.link(n.add("ShaderNodeTexImage", image=source).outputs[0], node.inputs[6])
    else:
        spot = n.add("ShaderNodeNewGeometry")
        n.put(
            n.mix(
                spot.outputs["Random Per Island"],
                tuple(c * 0.55 for c in colour),
                tuple(c * 1.3 for c in colour),
            ),
            node.inputs[6],
        )
    n.link(info.outputs["Color"], node.inputs[7])
    n.link(node.outputs[2], bsdf.inputs[0])
    return material


def quad(name: str, size: float, z: float) -> bpy.types.Object:
    """A square on the ground."""
    h = size / 2
    vertices = np.array([(-h, -h, 0), (h, -h, 0), (h, h, 0), (-h, h, 0)])
    thing = mesh_object(Part(vertices, np.array([[0, 1, 2, 3]]), np.zeros(1, dtype=np.int64), name=name), [], False)
    thing.location = (0, 0, z)
    return thing
