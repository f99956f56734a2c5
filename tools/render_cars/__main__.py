"""Run the renderer: `python -m tools.render_cars`, in the repository's root."""

from .render import main

if __name__ == "__main__":
    main()
