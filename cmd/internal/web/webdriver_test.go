package web

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/testenv"
)

// driverAt is where chromedriver listens, in the host's namespace of a lab.
const driverAt = "127.0.0.1:9515"

// browser is a Chromium without a screen, driven by WebDriver (W3C). It runs in the host's namespace.
type browser struct {
	t       *testing.T
	client  *http.Client
	session string // URL
}

// element is an element of the page, as WebDriver names it.
type element string

const elementKey = "element-6066-11e4-a52e-4f735466cecf" // WebDriver §12.1

func startBrowser(t *testing.T, w lab) *browser {
	t.Helper()
	driver := exec.Command("chromedriver", "--port=9515")
	driver.Env = append(os.Environ(), "HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
	var out bytes.Buffer
	driver.Stdout, driver.Stderr = &out, &out
	if err := w.Host.Start(driver); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, client: &http.Client{Transport: &http.Transport{DialContext: w.dial}, Timeout: time.Minute}}
	t.Cleanup(func() {
		if b.session != "" {
			b.call(http.MethodDelete, "", nil, nil) // Chromium ends before its driver is killed
		}
		b.client.CloseIdleConnections()
		_ = driver.Process.Kill()
		_ = driver.Wait() // "signal: killed" is expected
	})
	testenv.Eventually(t, "chromedriver", func() error {
		c, err := w.dial(t.Context(), "tcp", driverAt)
		if err == nil {
			c.Close()
		}
		return err
	})
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir=" + t.TempDir()}
	var made struct {
		ID string `json:"sessionId"`
	}
	b.session = "http://" + driverAt + "/session"
	b.call(http.MethodPost, "", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome", "goog:chromeOptions": map[string]any{"args": args},
	}}}, &made)
	b.session += "/" + made.ID
	return b
}

// on has failures reported for a subtest.
func (b *browser) on(t *testing.T) {
	whole := b.t
	b.t = t
	t.Cleanup(func() { b.t = whole })
}

// call sends a command of WebDriver, and reads the value of the answer.
func (b *browser) call(method, path string, in, out any) {
	b.t.Helper()
	if err := b.try(method, path, in, out); err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (b *browser) try(method, path string, in, out any) error {
	var body io.Reader
	if method == http.MethodPost {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(b.t.Context()), method, b.session+path, body)
	if err != nil {
		return err
	}
	answer, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var got struct{ Value json.RawMessage }
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d: %.500s", answer.StatusCode, got.Value)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(got.Value, out)
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.call(http.MethodPost, "/url", map[string]string{"url": "http://" + pageAt + path}, nil)
}

// resize sets the size of the page, as a phone's or a desktop's.
func (b *browser) resize(width, height int, phone bool) {
	b.t.Helper()
	b.emulate("Emulation.setDeviceMetricsOverride",
		map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
}

// emulate sends a command of Chromium's own protocol, which has what WebDriver has not.
func (b *browser) emulate(command string, params map[string]any) {
	b.t.Helper()
	b.call(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, nil)
}

// run executes a script, which returns a value.
func run[T any](b *browser, script string, args ...any) (value T) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.call(http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": args}, &value)
	return value
}

// find returns the first element of a CSS selector.
func (b *browser) find(selector string) element {
	b.t.Helper()
	var found map[string]string
	b.call(http.MethodPost, "/element", map[string]string{"using": "css selector", "value": selector}, &found)
	return element(found[elementKey])
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.call(http.MethodPost, "/element/"+string(b.find(selector))+"/click", struct{}{}, nil)
}

// keys types into the element that has the focus.
func (b *browser) keys(keys ...string) {
	b.t.Helper()
	var actions []map[string]string
	for _, k := range keys {
		for _, kind := range []string{"keyDown", "keyUp"} {
			actions = append(actions, map[string]string{"type": kind, "value": k})
		}
	}
	b.call(http.MethodPost, "/actions", map[string]any{"actions": []any{
		map[string]any{"type": "key", "id": "keyboard", "actions": actions},
	}}, nil)
}

// Keys of WebDriver §17.4.2.
const (
	keyTab   = "\ue004"
	keyEnter = "\ue007"
)

// await waits until a script returns true.
func (b *browser) await(what, script string) {
	b.t.Helper()
	testenv.Eventually(b.t, what, func() error {
		var got struct {
			OK   bool
			Text string
		}
		err := b.try(http.MethodPost, "/execute/sync", map[string]any{"args": []any{},
			"script": "return {ok: (() => {" + script + "})(), text: document.body.innerText}"}, &got)
		if err == nil && !got.OK {
			err = fmt.Errorf("the page shows %q", got.Text)
		}
		return err
	})
}

// screenshot writes a picture into the directory LANYARD_SCREENSHOTS, if it is set.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("LANYARD_SCREENSHOTS")
	if dir == "" {
		return
	}
	var picture string
	b.call(http.MethodGet, "/screenshot", nil, &picture)
	png, err := base64.StdEncoding.DecodeString(picture)
	if err == nil {
		err = os.WriteFile(strings.TrimSuffix(dir, "/")+"/"+name+".png", png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
