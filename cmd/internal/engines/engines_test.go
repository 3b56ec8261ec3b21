package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// userEngine returns the podman of a user whose files are in the result's directory.
func userEngine(t *testing.T, files map[string]string) (Engine, string) {
	t.Helper()
	dir := t.TempDir()
	e := Podman(dir)
	e.sources = containersConf(dir) // not those of this machine
	for name, text := range files {
		path := filepath.Join(dir, "containers", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return e, dir
}

// TestEffective checks the order of files, and that the attribute of podman 5 is kept for
// later files, as podman's own type does it.
func TestEffective(t *testing.T) {
	const conf, drop = "containers.conf", "containers.conf.d/"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
		last  string
	}{
		"nothing":        {nil, defaultDir, ""},
		"other settings": {map[string]string{conf: "[engine]\nruntime = \"crun\"\n"}, defaultDir, ""},
		"the file":       {map[string]string{conf: "[engine]\nhooks_dir = [\"/a\"]\n"}, "/a", conf},
		"another table":  {map[string]string{conf: "[containers]\nhooks_dir = [\"/a\"]\n"}, defaultDir, ""},
		"a drop-in": {map[string]string{conf: "[engine]\nhooks_dir = [\"/a\"]\n",
			drop + "1.conf": "[engine]\nhooks_dir = [\"/b\"]\n"}, "/b", drop + "1.conf"},
		"sorted": {map[string]string{drop + "2.conf": "engine.hooks_dir = [\"/b\"]",
			drop + "10.conf": "engine.hooks_dir = [\"/c\"]"}, "/b", drop + "2.conf"},
		"another suffix": {map[string]string{drop + "2.conf.bak": "engine.hooks_dir = [\"/b\"]"}, defaultDir, ""},
		"a subdirectory": {map[string]string{drop + "sub/2.conf": "engine.hooks_dir = [\"/b\"]"}, defaultDir, ""},
		"empty":          {map[string]string{conf: "engine.hooks_dir = []"}, "", conf},
		"appended":       {map[string]string{conf: "engine.hooks_dir = [\"/a\", {append=true}]"}, defaultDir + " /a", conf},
		"appended, sticky": {map[string]string{conf: "engine.hooks_dir = [\"/a\", {append=true}]",
			drop + "1.conf": "engine.hooks_dir = [\"/b\"]"}, defaultDir + " /a /b", drop + "1.conf"},
		"append ended": {map[string]string{conf: "engine.hooks_dir = [\"/a\", {append=true}]",
			drop + "1.conf": "engine.hooks_dir = [\"/b\", {append=false}]"}, "/b", drop + "1.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			e, dir := userEngine(t, c.files)
			settings, err := e.Settings()
			must(t, err)
			dirs, file := Effective(settings)
			last := c.last
			if last != "" {
				last = filepath.Join(dir, "containers", last)
			}
			if got := strings.Join(dirs, " "); got != c.want || file != last {
				t.Errorf("the directories are %q by %q, want %q by %q", got, file, c.want, last)
			}
		})
	}
}

func TestSettingsRefuses(t *testing.T) {
	for text, word := range map[string]string{
		"engine.hooks_dir = \"/a\"": "is not a list",
		"engine.hooks_dir = [1]":    "it is a list of directories",
		"engine.hooks_dir = [":      "containers.conf",
	} {
		e, _ := userEngine(t, map[string]string{"containers.conf": text})
		if _, err := e.Settings(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error is %v", text, err)
		}
	}
}

// TestInstallKeeps checks what Install does to directories that others have set.
func TestInstallKeeps(t *testing.T) {
	e, dir := userEngine(t, map[string]string{"containers.conf": "engine.hooks_dir = [\"/a\"]"})
	program := filepath.Join(dir, "lanyard-hook")
	install := func(want ...string) {
		t.Helper()
		_, err := Install(filepath.Join(dir, "hooks.d"), program, []Engine{e})
		must(t, err)
		settings, err := e.Settings()
		must(t, err)
		got, _ := Effective(settings)
		if diff := cmp.Diff(append(want, filepath.Join(dir, "hooks.d")), got); diff != "" {
			t.Errorf("hooks_dir differs (-want +got):\n%s", diff)
		}
	}
	install("/a")
	conf := filepath.Join(dir, "containers/containers.conf")
	must(t, os.WriteFile(conf, []byte("engine.hooks_dir = [\"/b\"]"), 0o644))
	install("/b", "/a")
	must(t, os.Remove(e.DropIn))
	must(t, os.WriteFile(conf, []byte("engine.hooks_dir = [\""+dir+"/hooks.d\"]"), 0o644))
	install()
	if _, err := os.Stat(e.DropIn); err == nil {
		t.Error("there is a drop-in that is not needed")
	}
}

// TestDecodeCRI decodes what crictl 1.37.0 printed for containerd 1.6.20: pod "on" has a
// runtime handler with the hook, pod "off" has none.
func TestDecodeCRI(t *testing.T) {
	pods, err := os.ReadFile("testdata/crictl-pods.json")
	must(t, err)
	containers, err := os.ReadFile("testdata/crictl-ps.json")
	must(t, err)
	got, err := decodeCRI(pods, containers)
	must(t, err)
	web50 := map[string]string{"io.lanyard.network": "web50"}
	want := []Container{
		{ID: "cb13dd69e4979bf19114916760022a64b8f03581d63d4fb0bc9a5ffcf9ac2ccf", Name: "prod/off", Annotations: web50,
			Sandbox: "c7ad40ee612ef1413088b87a3f354c70e1f0bba9e1d7de7d0b865848e97e48f5"},
		{ID: "2060c39ae57c1a2f60f0391e0a4a7c7576538aa07f7c6829270d18e2fff77555", Name: "prod/on", Annotations: web50,
			Sandbox: "313079dae3d91cefb11dd929fa1a6cd71c1d00d382286fc5eb2d1e1deea9e9a7"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the containers differ (-want +got):\n%s", diff)
	}
}
