// Package service is the privileged service on a Unix socket, and its client. lanyard-hook asks it for
// the containers of root and of users, the plugins for those of root.
//
// A connection carries one request, signs of life while it is carried out, and one reply. The
// socket is SOCK_SEQPACKET, so a message arrives whole or not at all. The service accepts no file
// descriptors from callers, and paths from root's plugins only: from others only names and a pid,
// which it checks itself. The kernel identifies the caller. Package hook/attach decides what the
// caller may have, and records it.
//
// Requests are JSON. So are replies, but for those to lanyard-hook and the plugins, and the rejection
// of a request that was not read: a byte that says what the reply is, and text. Hook and plugins
// decode no JSON. Package wire has what they must know of the messages.
package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/service/wire"
	"github.com/lanyard-net/lanyard/verify"
)

// Verbs of a request.
const (
	verbAttach = "attach"
	verbDetach = "detach"
	verbWhy    = "why"
	verbTell   = "tell"
)

// request is the message from a caller to the service.
type request struct {
	Version   int      `json:"version"`
	Verb      string   `json:"verb"`
	Container string   `json:"container,omitempty"`
	Name      string   `json:"name,omitempty"`
	Pid       int      `json:"pid,omitempty"`
	Pod       hook.Pod `json:"pod,omitzero"` // root's only
	Wants     []want   `json:"wants,omitempty"`
	Error     string   `json:"error,omitempty"` // of verbTell

	// Of wire.VerbHook: see wire.HookRequest.
	Stage   string          `json:"stage,omitempty"`
	State   json.RawMessage `json:"state,omitempty"`      // of the container, as the runtime wrote it
	Timeout time.Duration   `json:"timeout_ns,omitempty"` // that the hook waits
	Trace   bool            `json:"trace,omitempty"`      // the hook prints the duration of each step

	// Of wire.VerbCNI and wire.VerbNetavark, with Timeout.
	Command string          `json:"command,omitempty"`
	Netns   string          `json:"netns,omitempty"`       // path of the container's network namespace
	Inode   uint64          `json:"netns_inode,omitempty"` // of Netns, as the plugin sees it
	Input   json.RawMessage `json:"input,omitempty"`
}

// want is the wire format of hook.Want.
type want struct {
	Network   string       `json:"network"`
	Interface string       `json:"interface,omitempty"`
	Addrs     []netip.Addr `json:"addresses,omitempty"`
	MAC       ether.MAC    `json:"mac,omitzero"`
	MTU       int          `json:"mtu,omitempty"`
	Verify    verify.Mode  `json:"verify,omitempty"`
	Default   *bool        `json:"default-route,omitempty"`

	Sysctls []hook.Sysctl `json:"sysctls,omitempty"`
}

// reply is the message from the service to a caller.
type reply struct {
	Version     int       `json:"version"`
	Error       string    `json:"error,omitempty"`
	Attachments []granted `json:"attachments,omitempty"`
	Failures    []Failure `json:"failures,omitempty"`
}

// granted is the part of an attachment that a caller receives: what is visible from
// inside the container, and nothing about the host.
type granted struct {
	ID        verify.ID      `json:"id"`
	Network   string         `json:"network"`
	Interface string         `json:"interface"`
	MAC       ether.MAC      `json:"mac"`
	Addrs     []netip.Prefix `json:"addresses"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
	Verdict   verify.Verdict `json:"verdict"`
}

// Failure is an error reply, kept for "lanyard why". A runtime may not show it to the
// user: crun sends a hook's stderr to /dev/null.
type Failure struct {
	At        time.Time `json:"at"`
	Container string    `json:"container"`
	Error     string    `json:"error"`
}

func requestOf(r hook.Request) request {
	m := request{Version: wire.Version, Verb: verbAttach, Container: r.Container, Name: r.Name, Pid: r.Pid, Pod: r.Pod}
	for _, w := range r.Wants {
		m.Wants = append(m.Wants, want(w))
	}
	return m
}

func (m *request) request() hook.Request {
	r := hook.Request{Container: m.Container, Name: m.Name, Pid: m.Pid, Pod: m.Pod}
	for _, w := range m.Wants {
		r.Wants = append(r.Wants, hook.Want(w))
	}
	return r
}

func grantedOf(a hook.Attachment) granted {
	return granted{ID: a.ID, Network: a.Network, Interface: a.Interface, MAC: a.MAC, Addrs: a.Addrs, Gateways: a.Gateways,
		Verdict: a.Verdict}
}

func (g granted) attachment() hook.Attachment {
	return hook.Attachment{
		ID: g.ID, State: hook.Attached, Network: g.Network, Interface: g.Interface, MAC: g.MAC,
		Addrs: g.Addrs, Gateways: g.Gateways, Verdict: g.Verdict,
	}
}

// decode reads a request. It rejects unknown fields: a field of another version may
// restrict the request.
func decode(b []byte) (*request, error) {
	var m request
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("message is not a request in JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("message is not one request in JSON: something follows it")
	}
	if m.Version != wire.Version {
		return nil, fmt.Errorf("message has version %d, but the service uses %d: install hook and service of one release",
			m.Version, wire.Version)
	}
	switch m.Verb {
	case verbAttach, verbDetach, verbWhy, verbTell, wire.VerbHook, wire.VerbCNI, wire.VerbNetavark:
		return &m, nil
	}
	return nil, fmt.Errorf("message has the unknown verb %.20q: use attach, detach, why, tell, hook, cni or netavark",
		m.Verb)
}
