"""Render the Markdown help of templates as safe HTML, without scripts."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

LONGEST = 20_000


class _Markdown(MarkdownIt):
    """Markdown without raw HTML and images. Only http(s) links, which open in a new tab."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.disable(["image", "html_block", "html_inline"])
        self.add_render_rule("link_open", _link)

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        return url.lower().startswith(("http://", "https://"))


def _link(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: Any,  # noqa: ANN401 - the library's
    _environment: MutableMapping[str, Any],
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, _environment)


_MARKDOWN = _Markdown()


def safe_html(markdown: str) -> str:
    """Render Markdown as HTML."""
    return str(_MARKDOWN.render(markdown[:LONGEST])).strip()
