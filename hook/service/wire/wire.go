// Package wire has the messages between the service and lanyard-hook or a plugin: the requests
// for one stage of a hook and for one command of a plugin, and the first byte of a reply. Every
// container start loads it with lanyard-hook, so it imports nothing but strconv and time.
package wire

import (
	"strconv"
	"time"
)

// Version is the version of the messages. Hook and service are installed together, but a service of
// the previous release may still be running.
const Version = 2

// MaxMessage is the maximum length of a message, in bytes. Most of a request is the container's
// annotations; lanyard-attach carries it out if it is longer. The service keeps its replies shorter.
const MaxMessage = 64 << 10

// SignInterval is the interval of the service's signs of life while a request is in progress.
const SignInterval = time.Second

// Grace is the time from an attach's timeout to the end of the process that waits for it. An undo has at
// most as long (undoTimeout in hook/attach).
const Grace = 5 * time.Second

// Verbs of requests.
const (
	VerbHook     = "hook" // one stage of an OCI hook
	VerbCNI      = "cni"  // one command of a plugin
	VerbNetavark = "netavark"
)

// A reply to lanyard-hook and to a plugin, and the rejection of any request that was not read, is one of these bytes
// and text.
const (
	Done      = '0' // done; the text is for the hook's stderr, or for the plugin's stdout
	Failed    = '1' // the text is the reason, in one line, or for the plugin's stdout
	Later     = 'r' // the request was not read: send it again
	NotMine   = 'x' // hook or plugin have to do it themselves; the text says why, or is empty
	StillBusy = '.' // the request is in progress; another reply follows
)

// HookRequest returns the request for one stage. state is the container's state in JSON, as the
// runtime wrote it; timeout is how long the hook waits; trace asks for the duration of each step.
// The stage must need no escapes in JSON.
func HookRequest(stage string, timeout time.Duration, trace bool, state []byte) []byte {
	head := `{"version":` + strconv.Itoa(Version) + `,"verb":"` + VerbHook + `","stage":"` + stage +
		`","timeout_ns":` + strconv.FormatInt(int64(timeout), 10)
	if trace {
		head += `,"trace":true`
	}
	head += `,"state":`
	b := make([]byte, 0, len(head)+len(state)+1)
	b = append(append(b, head...), state...)
	return append(b, '}')
}

// PluginRequest returns the request for one command of a plugin. input is JSON. netns is the path of
// the container's network namespace, or empty, and inode is the file that the plugin sees there.
func PluginRequest(plugin, command, netns string, inode uint64, timeout time.Duration, input []byte) []byte {
	head := `{"version":` + strconv.Itoa(Version) + `,"verb":"` + plugin + `","command":"` + command +
		`","timeout_ns":` + strconv.FormatInt(int64(timeout), 10)
	if netns != "" {
		head += `,"netns":` + quote(netns) + `,"netns_inode":` + strconv.FormatUint(inode, 10)
	}
	head += `,"input":`
	b := make([]byte, 0, len(head)+len(input)+1)
	b = append(append(b, head...), input...)
	return append(b, '}')
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
