"""Serve the web page and the API documentation from this host alone."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response

PAGE = Path(__file__).parent / "page"

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: the page sends no request to another host, whatever it contains."""


def add(app: FastAPI) -> None:
    """Add the page, the API documentation, and the files that both consist of."""
    page = StaticFiles(directory=PAGE, check_dir=False)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        answer = await page.get_response("index.html", request.scope)
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["Permissions-Policy"] = "microphone=(self)"
        return answer

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _swagger(f"{app.title}: API")

    @app.get("/docs.json", include_in_schema=False)
    async def schema() -> JSONResponse:
        return JSONResponse(app.openapi())

    app.mount("/page", page)
    app.mount("/swagger", StaticFiles(directory=_swagger_files(), check_dir=False))


def _swagger(title: str) -> HTMLResponse:
    answer = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url="/swagger/swagger-ui-bundle.js",
        swagger_css_url="/swagger/swagger-ui.css",
        swagger_favicon_url="/swagger/favicon-light-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    # Swagger starts from a script inside the page and sets the style of single elements
    answer.headers["Content-Security-Policy"] = (
        f"{POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
    )
    return answer


def _swagger_files() -> Path:
    """Return the folder with Swagger's files.

    BentoML ships them, but not in a public place. A package of their own would put the same
    megabytes into the image a second time. If BentoML moves them, ``/docs`` stays empty, the rest
    of the service works, and a test fails.
    """
    origin = getattr(find_spec("bentoml"), "origin", None) or "."
    return Path(origin).parent / "_internal" / "server" / "static_content"
