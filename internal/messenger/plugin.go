package messenger

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/service/wire"
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

// AskPlugin has the service carry out a command of a plugin. netns is the path of the container's
// network namespace, if the command needs one. The service may see another file there, or none: so it
// is told which file this process sees. The results are those of ask.
func (m Messenger) AskPlugin(plugin, command, netns string, input []byte) (text string, ok bool, err error) {
	var st unix.Stat_t
	if netns != "" {
		_ = unix.Stat(netns, &st) // without a file, the inode is 0, which the service declines
	}
	return m.ask(func(left time.Duration) []byte {
		return wire.PluginRequest(plugin, command, netns, st.Ino, left, input)
	})
}
