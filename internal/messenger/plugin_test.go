package messenger

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPluginFields checks that the request is JSON, whatever the path of a namespace.
func TestPluginFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a \"path\"\\with\nall of ü")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	type request struct {
		Verb, Command, Netns string
		Inode                uint64 `json:"netns_inode"`
		Input                map[string]string
	}
	want := request{"cni", "ADD", path, st.Ino, map[string]string{"a": "b"}}
	var got request
	text := append(append([]byte{'{'}, PluginFields("cni", "ADD", path, []byte(`{"a":"b"}`))...), '}')
	if err := json.Unmarshal(text, &got); err != nil || got.Netns != want.Netns || got.Inode != want.Inode ||
		got.Verb+got.Command+got.Input["a"] != "cniADDb" {
		t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
	}
}
