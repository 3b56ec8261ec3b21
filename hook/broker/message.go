// Package broker attaches rootless containers: a privileged daemon on a socket,
// and the client that lanyard-hook becomes where it has no privilege itself.
//
// A connection carries one JSON message each way (SOCK_SEQPACKET, so that a
// message is whole or is none). The broker takes no file descriptors and no
// paths from callers, only names and a pid, which it looks at itself. Who
// calls, the kernel says. What the caller may have is decided by package hook,
// where it is also recorded.
package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

// maxMessage bounds a message, in bytes. A request for eight networks has less
// than two thousand; refusals are kept to fit.
const maxMessage = 32 << 10

// version is that of the messages. Hook and broker are installed together, but
// a broker may have been running since before.
const version = 1

// Verbs of a request.
const (
	verbAttach = "attach"
	verbDetach = "detach"
	verbWhy    = "why"
	verbTell   = "tell"
)

// request is what a caller sends.
type request struct {
	Version   int    `json:"version"`
	Verb      string `json:"verb"`
	Container string `json:"container,omitempty"`
	Name      string `json:"name,omitempty"`
	Pid       int    `json:"pid,omitempty"`
	Wants     []want `json:"wants,omitempty"`
	Error     string `json:"error,omitempty"` // of tell
}

// want is hook.Want as it is sent.
type want struct {
	Network   string       `json:"network"`
	Interface string       `json:"interface,omitempty"`
	Addrs     []netip.Addr `json:"addresses,omitempty"`
	MAC       verify.MAC   `json:"mac,omitzero"`
	MTU       int          `json:"mtu,omitempty"`
	Verify    verify.Mode  `json:"verify,omitempty"`
	Default   *bool        `json:"default-route,omitempty"`
}

// reply is what the broker answers.
type reply struct {
	Version     int       `json:"version"`
	Error       string    `json:"error,omitempty"`
	Later       bool      `json:"later,omitempty"` // nothing was looked at: ask again
	Attachments []granted `json:"attachments,omitempty"`
	Failures    []Failure `json:"failures,omitempty"`
}

// granted is what a caller is told of an attachment: what can be seen from
// inside, and nothing of the host.
type granted struct {
	ID        verify.ID      `json:"id"`
	Network   string         `json:"network"`
	Interface string         `json:"interface"`
	MAC       verify.MAC     `json:"mac"`
	Addrs     []netip.Prefix `json:"addresses"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
	Verdict   verify.Verdict `json:"verdict"`
}

// Failure is an answer that was no success, kept for the user whom the runtime
// did not show it: crun sends a hook's stderr to /dev/null.
type Failure struct {
	At        time.Time `json:"at"`
	Container string    `json:"container"`
	Error     string    `json:"error"`
}

func requestOf(r hook.Request) request {
	m := request{Version: version, Verb: verbAttach, Container: r.Container, Name: r.Name, Pid: r.Pid}
	for _, w := range r.Wants {
		m.Wants = append(m.Wants, want(w))
	}
	return m
}

func (m *request) request() hook.Request {
	r := hook.Request{Container: m.Container, Name: m.Name, Pid: m.Pid}
	for _, w := range m.Wants {
		r.Wants = append(r.Wants, hook.Want(w))
	}
	return r
}

func grantedOf(a hook.Attachment) granted {
	return granted{ID: a.ID, Network: a.Network, Interface: a.Interface, MAC: a.MAC, Addrs: a.Addrs, Gateways: a.Gateways, Verdict: a.Verdict}
}

func (g granted) attachment() hook.Attachment {
	return hook.Attachment{
		ID: g.ID, State: hook.Attached, Network: g.Network, Interface: g.Interface, MAC: g.MAC,
		Addrs: g.Addrs, Gateways: g.Gateways, Verdict: g.Verdict,
	}
}

// decode reads a request. It is strict: a field that this version does not know
// may be one that would have tightened what is asked for.
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
	if m.Version != version {
		return nil, fmt.Errorf("message is of version %d, and the broker speaks %d: install hook and broker of one release", m.Version, version)
	}
	switch m.Verb {
	case verbAttach, verbDetach, verbWhy, verbTell:
		return &m, nil
	}
	return nil, fmt.Errorf("message has the verb %.20q: use attach, detach, why or tell", m.Verb)
}
