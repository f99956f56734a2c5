"""Links and headings of Markdown."""

from __future__ import annotations

from tools.links import anchors, links, target


def test_links_inside_the_repository_are_found_and_code_is_no_link() -> None:
    text = "[a](b.md#c), `[x](y)` and [d](#e), [f](https://g), ![h](i.jpg)\n```\n[j](k)\n```\n"
    assert links(text) == [("b.md", "c"), ("", "e"), ("i.jpg", "")]


def test_anchors_are_those_of_the_repositorys_host() -> None:
    text = "# Many photos: `nameplate predict`\n## 7 and 8. Train: 220×305\n## [A](b)\n## A\n```\n# no heading\n```\n"
    assert anchors(text) == {"many-photos-nameplate-predict", "7-and-8-train-220305", "a", "a-1"}


def test_a_link_is_read_from_the_place_of_its_page() -> None:
    assert target("../deploy/alerts.yml", "docs/deploy.md") == "deploy/alerts.yml"
    assert target("", "docs/deploy.md") == "docs/deploy.md"
