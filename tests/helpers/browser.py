"""A real browser without a window, and what tests ask of a page in it."""
import json
import shutil

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without a display, without root's sandbox, and without what a browser asks of the network by itself.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,900")


def find_browser():
    """The paths of Chromium or Chrome and of its driver, or why there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        return None, "no chromium and chromedriver here: apt-get install chromium chromium-driver"
    return (program, driver), ""


def start_browser(paths, folder):
    """A driver of the browser, whose data are in the new folder `folder`."""
    options = Options()
    options.binary_location = paths[0]
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(paths[1]))


class Page:
    """A page of the disk in the browser."""

    def __init__(self, browser, path):
        self.browser = browser
        self.logs()  # those of earlier pages
        browser.get(f"file://{path}")

    def logs(self):
        """The addresses of the network asked for, and the errors and warnings of the console, since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        # Others are of the file, of images inside, and of the browser's own first page.
        asked = [url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))]
        # Of lower levels are remarks that something took long.
        return asked, [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def __call__(self, script, *arguments):
        """The value of a JavaScript expression of the elements `a`."""
        return self.browser.execute_script(f"const a = arguments; return {script}", *arguments)

    def find(self, selector):
        """The first element."""
        return self.browser.find_element("css selector", selector)

    def texts(self, selector):
        """The texts of all elements, whether one can see them or not."""
        return self("[...document.querySelectorAll(a[0])].map((node) => node.textContent)", selector)

    def click(self, selector):
        """Scroll to an element and click it as a mouse does."""
        element = self.find(selector)
        self("a[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, selector, value):
        """Choose an entry of a list by its value."""
        self.click(f'{selector} option[value="{value}"]')

    def wait(self, script, *arguments):
        """Wait until an expression is true."""
        WebDriverWait(self.browser, 10, 0.02).until(lambda _: self(script, *arguments))
