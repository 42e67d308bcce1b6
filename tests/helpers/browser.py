"""A headless browser, and methods to query a page in it."""
import json
import shutil

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# No display, no root sandbox, and no network requests by the browser itself.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,900")


def find_browser():
    """Return the paths of Chromium or Chrome and of its driver, or the reason why they are missing."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        return None, "no chromium and chromedriver here: apt-get install chromium chromium-driver"
    return (program, driver), ""


def start_browser(paths, folder):
    """Return a WebDriver whose browser stores its data in the new folder `folder`."""
    options = Options()
    options.binary_location = paths[0]
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(paths[1]))


class Page:
    """A page from the disk in the browser."""

    def __init__(self, browser, path):
        self.browser = browser
        self.logs()  # discard the logs of earlier pages
        browser.get(f"file://{path}")

    def logs(self):
        """Return requested network addresses, and errors and warnings of the console, since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        # Other addresses belong to the file, to embedded images, and to the browser's start page.
        asked = [url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))]
        # Lower levels contain notes about slow operations.
        return asked, [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def __call__(self, script, *arguments):
        """Return the value of a JavaScript expression of the elements `a`."""
        return self.browser.execute_script(f"const a = arguments; return {script}", *arguments)

    def find(self, selector):
        """Return the first matching element."""
        return self.browser.find_element("css selector", selector)

    def texts(self, selector):
        """Return the texts of all elements, visible or not."""
        return self("[...document.querySelectorAll(a[0])].map((node) => node.textContent)", selector)

    def click(self, selector):
        """Scroll to an element and click it with the mouse."""
        element = self.find(selector)
        self("a[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, selector, value):
        """Choose an entry of a list by its value."""
        self.click(f'{selector} option[value="{value}"]')

    def wait(self, script, *arguments):
        """Wait until an expression is true."""
        WebDriverWait(self.browser, 10, 0.02).until(lambda _: self(script, *arguments))
