package web

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
)

// Scripts that return what the page shows.
const (
	names   = `return [...document.querySelectorAll(".who")].map(e => e.innerText).join(" ")`
	focused = `return document.activeElement.innerText || document.activeElement.id`
	// overflow is the number of pixels by which the page is wider than the window.
	overflow = `return document.documentElement.scrollWidth - window.innerWidth`
	// verdictOf returns the class of a container's verdict.
	verdictOf = `return [...document.querySelectorAll("li")].filter(e => e.innerText.startsWith(arguments[0]))` +
		`[0].querySelector(".verdict").className`
)

// TestBrowser uses the page as a person does, in Chromium: reads, filters by keyboard, opens a
// container, and sees a VLAN break and work again without touching anything.
func TestBrowser(t *testing.T) {
	testenv.ByName(t) // Chromium is a large package, which CI does not install
	w := newLab(t, 3)
	b := startBrowser(t, w)

	b.resize(1280, 900, false)
	b.open("/")
	b.await("all containers", `return document.querySelector("#summary").innerText === "5 of 5 containers work"`)
	if got := run[string](b, "return document.title"); strings.Contains(got, "mine") {
		t.Errorf("the id of a container has run as a script: the title is %q", got)
	}
	if got := run[string](b, names); got != "db-1 "+hostile+" web-1 web-2 web-3" {
		t.Errorf("the page lists %q", got)
	}
	b.screenshot("desktop")

	t.Run("keyboard", func(t *testing.T) {
		b.on(t)
		b.keys("/", "d", "b")
		b.await("the filter", `return document.querySelectorAll(".who").length === 1`)
		if got := run[string](b, "return location.search"); got != "?q=db" {
			t.Errorf("the address has %q", got)
		}
		// From the filter to the list: the verdict, and then the first container.
		for n := 0; run[string](b, focused) != "db-1"; n++ {
			if n == 4 {
				t.Fatalf("after %d tabs the focus is on %q", n, run[string](b, focused))
			}
			b.keys(keyTab)
		}
		if got := run[string](b, `return getComputedStyle(document.activeElement).outlineStyle`); got == "none" {
			t.Error("the focus cannot be seen")
		}
		// The focus survives a newer view.
		shown := run[string](b, `return document.querySelector("#main").dataset.version`)
		b.await("a newer view", `return document.querySelector("#main").dataset.version !== "`+shown+`"`)
		if got := run[string](b, focused); got != "db-1" {
			t.Errorf("a newer view moved the focus to %q", got)
		}
		b.keys(keyEnter)
		b.await("the container's page", `return document.querySelector("h1").innerText === "db-1"`)
		b.await("its plots", `return document.querySelectorAll(".plots svg[aria-label]").length === 4`)
		b.open("/")
	})

	t.Run("broken", func(t *testing.T) {
		b.on(t)
		b.await("green", `return document.querySelectorAll(".parent.good").length === 2`)
		w.gateways["db"].SetPort(false) // the host's card keeps its carrier
		b.await("red", `return document.querySelector(".parent.bad h3").innerText.startsWith("eth8")`)
		b.await("the reason", `return document.querySelector(".parent.bad").innerText.includes("did not answer")`)
		if got := run[string](b, verdictOf, "web-1"); got != "verdict good" {
			t.Errorf("another VLAN's container has %q", got)
		}
		b.screenshot("broken")
		w.gateways["db"].SetPort(true)
		b.await("green again", `return document.querySelectorAll(".parent.good").length === 2`)
		w.SetTrunk(false)
		b.await("no carrier", `return document.querySelector(".parent.bad").innerText.includes("no carrier")`)
		w.SetTrunk(true)
		w.WaitCarrier()
		b.await("green with a carrier", `return document.querySelectorAll(".parent.good").length === 2`)
	})

	t.Run("anomaly", func(t *testing.T) {
		b.on(t)
		s := w.AddClaimant(0, "192.168.50.2/24")
		s.SetMAC(ether.MAC{2, 0, 0, 0, 0, 2})
		if _, err := s.Exec("ping", "-n", "-c1", "-W5", "192.168.50.1"); err != nil {
			t.Fatal(err)
		}
		b.await("the conflict", `return document.body.innerText.includes("address-conflict")`)
		b.click(`li[id*="web-1"] a`)
		b.await("its anomalies", `return document.querySelector(".anomalies").innerText.includes("02:00:00:00:00:02")`)
		b.screenshot("container")
		b.click(`nav a`)
		b.await("the list", `return document.querySelectorAll(".who").length === 5`)
	})

	t.Run("phone", func(t *testing.T) {
		b.on(t)
		b.resize(360, 740, true)
		for name, path := range map[string]string{"phone": "/", "phone-container": "/c/" + w.attachment(t, hostile)} {
			b.open(path)
			b.await("the page", `return document.querySelector("#main").dataset.version > 0`)
			if n := run[int](b, overflow); n > 0 {
				t.Errorf("%s is %d pixels wider than a phone", path, n)
			}
			b.screenshot(name)
		}
	})

	t.Run("gone", func(t *testing.T) {
		b.on(t)
		b.open("/c/" + w.attachment(t, "web-3"))
		b.await("the container", `return document.querySelector("h1").innerText === "web-3"`)
		w.DetachAndEnd("web-3", w.containers["web-3"])
		b.await("its end", `return document.querySelector("h1").innerText === "Not attached"`)
		b.resize(1280, 900, false)
		b.emulate("Emulation.setEmulatedMedia", map[string]any{
			"features": []map[string]string{{"name": "prefers-color-scheme", "value": "dark"}},
		})
		b.open("/")
		b.screenshot("dark")
		w.service.Stop()
		b.await("the service's end", `return document.querySelector("#lost").innerText.includes("has not answered since")`)
	})
}
