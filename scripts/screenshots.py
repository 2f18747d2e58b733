"""Draw docs/form.png and docs/run-in-ui.png from a running `./run ui`, with the tests' browser.

RETRAIN_SOURCE=... ./run ui                           # in another terminal, with an empty data root
.venv/bin/python scripts/screenshots.py               # PREFECT_SERVER_API_PORT as there
"""  # noqa: INP001 - a script, not a package

import io
import os
import re
import shutil
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
ADDRESS = f"http://127.0.0.1:{os.environ.get('PREFECT_SERVER_API_PORT') or 4200}"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SIZE: ViewportSize = {"width": 1100, "height": 1000}
SECONDS = 600  # that the training may take


def main() -> None:
    """Fill in the form, start the run, and draw both pages."""
    asked = httpx.get(f"{ADDRESS}/api/deployments/name/train/on-demand").raise_for_status().json()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = chromium.new_page(viewport=SIZE)
        page.goto(f"{ADDRESS}/v2/deployments/deployment/{asked['id']}/run")
        page.get_by_role("button", name="Select recipe").click()
        page.get_by_placeholder("Search...").fill("cnn")
        page.keyboard.press("Enter")
        page.get_by_role("listbox").wait_for(state="hidden")
        draw(page, "form.png")
        with page.expect_response(re.compile("create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        run = answer.value.json()["id"]
        page.goto(f"{ADDRESS}/v2/runs/flow-run/{run}?tab=Artifacts")
        done = page.get_by_role("main").get_by_text("Completed", exact=True)
        done.first.wait_for(timeout=SECONDS * 1000)
        page.reload()  # the list of artifacts is that of when it was opened
        page.get_by_role("link", name="mnist-report").click()
        page.locator("a[href*='/artifacts/artifact/']").first.click()
        page.locator("main img[src^='data:image/png']").first.wait_for()
        draw(page, "run-in-ui.png")
        chromium.close()


def draw(page: Page, name: str) -> None:
    """Write what the page shows as a PNG of 128 colours."""
    page.wait_for_timeout(1000)  # what moves comes to rest
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
