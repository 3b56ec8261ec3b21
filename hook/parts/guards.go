package parts

import (
	"errors"
	"io/fs"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
)

// ErrNoGuards is returned if the host has no namespace for guarded attachments. "lanyard serve"
// creates it.
var ErrNoGuards = errors.New("only the service creates guarded attachments: run \"lanyard serve\"")

// OpenGuards opens the namespace of guarded attachments. It returns ErrNoGuards if none is pinned
// at GuardNetns.
func (p *Parts) OpenGuards() (*link.Netns, error) {
	ns, err := p.Host.OpenNetnsPath(p.GuardNetns)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNetns) {
		return nil, ErrNoGuards
	}
	return ns, err
}
