package messenger

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// pluginTime is the maximum time for one command of a plugin.
const pluginTime = 30 * time.Second

// ForPlugin returns the messenger of a plugin. LANYARD_ROOT is the directory of Lanyard's files, for
// tests: a plugin gets its arguments from the container engine.
func ForPlugin() Messenger {
	return Messenger{
		Root: os.Getenv("LANYARD_ROOT"), Start: time.Now(), Timeout: pluginTime,
		Remedy: "install it there, and let the engine find this plugin by a link, not by a copy",
	}
}

// PluginFields returns the request to carry out a command of a plugin. input is JSON. netns is the
// path of the container's network namespace, if the command needs one. The service may see another
// file there, or none: so it is told which file this process sees.
func PluginFields(plugin, command, netns string, input []byte) []byte {
	head := `"verb":"` + plugin + `","command":"` + command + `",`
	if netns != "" {
		var st unix.Stat_t
		_ = unix.Stat(netns, &st) // no file is inode 0, for which the service does nothing
		head += `"netns":` + quote(netns) + `,"netns_inode":` + strconv.FormatUint(st.Ino, 10) + `,`
	}
	return append([]byte(head+`"input":`), input...)
}

// quote returns a string of JSON.
func quote(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		if c < ' ' || c == '"' || c == '\\' {
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			continue
		}
		b = append(b, c)
	}
	return string(append(b, '"'))
}
