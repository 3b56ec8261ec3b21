// Package broker attaches rootless containers: a privileged daemon on a socket,
// and the client that lanyard-hook uses if it has no privilege itself.
//
// A connection carries one JSON message each way. The socket is SOCK_SEQPACKET, so a
// message arrives whole or not at all. The broker accepts no file descriptors and no
// paths from callers, only names and a pid, which it checks itself. The kernel
// identifies the caller. Package hook decides what the caller may have, and records it.
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
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// maxMessage is the maximum length of a message, in bytes. A request for eight networks
// has under 2,000; maxText and maxFailures keep replies below the limit.
const maxMessage = 32 << 10

// version is the version of the messages. Hook and broker are installed together, but
// a broker of the previous release may still be running.
const version = 1

// Verbs of a request.
const (
	verbAttach = "attach"
	verbDetach = "detach"
	verbWhy    = "why"
	verbTell   = "tell"
)

// request is the message from a caller to the broker.
type request struct {
	Version   int    `json:"version"`
	Verb      string `json:"verb"`
	Container string `json:"container,omitempty"`
	Name      string `json:"name,omitempty"`
	Pid       int    `json:"pid,omitempty"`
	Wants     []want `json:"wants,omitempty"`
	Error     string `json:"error,omitempty"` // of verbTell
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
}

// reply is the message from the broker to a caller.
type reply struct {
	Version     int       `json:"version"`
	Error       string    `json:"error,omitempty"`
	Later       bool      `json:"later,omitempty"` // the request was not read: send it again
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
	if m.Version != version {
		return nil, fmt.Errorf("message has version %d, but the broker uses %d: install hook and broker of one release",
			m.Version, version)
	}
	switch m.Verb {
	case verbAttach, verbDetach, verbWhy, verbTell:
		return &m, nil
	}
	return nil, fmt.Errorf("message has the unknown verb %.20q: use attach, detach, why or tell", m.Verb)
}
