package parts

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// ErrNoGuards is returned if this process has no namespace for guarded attachments. "lanyard serve"
// creates it.
var ErrNoGuards = errors.New("only the broker creates guarded attachments: run \"lanyard serve\"")

// GuardTag returns the part of an id that the links of a guarded attachment are named after, so
// that they can be deleted when only the intent is known.
func GuardTag(id verify.ID) string { return id.String()[20:] }

// OpenGuards opens the namespace of guarded attachments. It returns ErrNoGuards if this process
// creates no guards.
func (l *Parts) OpenGuards() (*link.Netns, error) {
	if l.Guards == nil {
		return nil, ErrNoGuards
	}
	return l.Host.OpenNetnsPath(l.GuardNetns)
}
