// Package journal writes a log to systemd's journal, each attribute as a field.
package journal

import (
	"bytes"
	"context"
	"log/slog"
	"reflect"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
	slogjournal "github.com/systemd/slog-journal"
)

// Stderr reports whether stderr is a stream to the journal, as it is for a unit of systemd.
func Stderr() bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil // an error: JOURNAL_STREAM is of another program, or stderr is closed
}

// handler is a [slog.Handler]. journalctl prints the message of an entry only, so that the message has
// the attributes too.
type handler struct {
	fields slog.Handler // sends an entry
	text   slog.Handler // writes the attributes to line
	line   *line
}

// line is the text of one entry at a time.
type line struct {
	mu sync.Mutex
	bytes.Buffer
}

// NewHandler returns a handler that sends what it gets to journald. The attribute "network" becomes
// the field LANYARD_NETWORK. Each element of a list is a field: "addresses" becomes as many
// LANYARD_ADDRESS.
func NewHandler() (slog.Handler, error) {
	fields, err := slogjournal.NewHandler(&slogjournal.Options{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { return field(a) },
	})
	if err != nil {
		return nil, err
	}
	l := &line{}
	text := slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: withoutBuiltin})
	return handler{fields, text, l}, nil
}

// Enabled implements [slog.Handler].
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.fields.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	text, err := h.attrs(ctx, r)
	if err != nil {
		return err
	}
	id, known := kinds[r.Message]
	if known {
		r = r.Clone()
		r.AddAttrs(slog.String(messageID, id))
	}
	r.Message = strings.TrimSpace(r.Message + " " + text)
	return h.fields.Handle(ctx, r)
}

func (h handler) attrs(ctx context.Context, r slog.Record) (string, error) {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.Reset()
	err := h.text.Handle(ctx, r)
	return h.line.String(), err
}

// WithAttrs implements [slog.Handler].
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.fields.WithAttrs(attrs), h.text.WithAttrs(attrs), h.line}
}

// WithGroup implements [slog.Handler].
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.fields.WithGroup(name), h.text.WithGroup(name), h.line}
}

// withoutBuiltin removes what the journal has in fields of its own.
func withoutBuiltin(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

const (
	messageID = "MESSAGE_ID"
	prefix    = "LANYARD_"
)

// renamed are the attributes with another word in the journal.
var renamed = map[string]string{
	"addresses": "ADDRESS", "containers": "CONTAINER", "networks": "NETWORK", "err": "ERROR",
}

// field returns an attribute as a field, or as a group of fields with the same name.
func field(a slog.Attr) slog.Attr {
	if a.Key == messageID || strings.HasPrefix(a.Key, prefix) { // of a group
		return a
	}
	name := renamed[a.Key]
	if name == "" {
		name = strings.ToUpper(a.Key)
	}
	name = prefix + name
	list := reflect.ValueOf(a.Value.Any())
	if list.Kind() != reflect.Slice {
		return slog.Attr{Key: name, Value: a.Value}
	}
	var each []slog.Attr
	for i := range list.Len() {
		each = append(each, slog.Any(name, list.Index(i).Interface()))
	}
	return slog.Attr{Value: slog.GroupValue(each...)}
}
