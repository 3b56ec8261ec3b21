package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
)

// errNoAttachment is returned by find when no container, pod or attachment has the id.
var errNoAttachment = errors.New("no container, pod or attachment")

// find returns the attachments with an id: a container's, an attachment's, or an
// unambiguous prefix of one; or a pod's NAMESPACE/NAME. A container on several networks has
// several attachments. The error is errNoAttachment if no attachment matches.
func find(recs []hook.Attachment, id string) ([]hook.Attachment, error) {
	if found := withID(recs, id); len(found) > 0 {
		return found, nil
	}
	var candidates []string
	for _, a := range recs {
		for _, known := range append(ids(a), a.ID.String()) {
			if strings.HasPrefix(known, id) && id != "" {
				if c, _, _ := strings.Cut(known, ":"); len(id) <= len(c) {
					known = c // see withID
				}
				candidates = append(candidates, known)
			}
		}
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	switch len(candidates) {
	case 0:
		return nil, fmt.Errorf("%w %q: \"lanyard ps\" lists them", errNoAttachment, id)
	case 1:
		return withID(recs, candidates[0]), nil
	}
	return nil, fmt.Errorf("id %q is ambiguous: it matches %s: give more characters", id, quoteSome(candidates))
}

// idOf returns the word by which find finds attachments: id itself, or the id of the container with that
// name. Runtimes do not pass the name to hooks, so idOf asks the caller's podman and Docker, unless id is
// a full id or has the 12 digits of "lanyard ps". A name takes precedence over a prefix of an id: "db" is
// both. The error is that of find if they do not know the name.
func idOf(ctx context.Context, recs []hook.Attachment, id string) (string, error) {
	_, err := find(recs, id)
	if err == nil && (len(id) >= overview.ShownID || len(withID(recs, id)) > 0) {
		return id, nil
	}
	named, askErr := engines.ContainerID(ctx, id)
	switch {
	case askErr != nil && err != nil:
		return "", fmt.Errorf("container %q: %w: give the id that \"lanyard ps\" lists", id, askErr)
	case named == "" || err == nil && strings.HasPrefix(named, id):
		return id, err
	case len(withID(recs, named)) == 0:
		return "", fmt.Errorf("container %q (%s) is not attached: \"lanyard why %[1]s\" and \"lanyard hooks status\" "+
			"say more", id, abbreviate(named, false))
	}
	return named, nil
}

// withID returns the attachments that have exactly this id. The plugins for CNI and netavark write
// CONTAINER:INTERFACE:NETWORK: there, CONTAINER means all attachments of the container.
func withID(recs []hook.Attachment, id string) (found []hook.Attachment) {
	for _, a := range recs {
		ofContainer := func(k string) bool { return k == id || strings.HasPrefix(k, id+":") }
		if a.ID.String() == id || slices.ContainsFunc(ids(a), ofContainer) || a.Pod.Sandbox != "" && a.Pod.String() == id {
			found = append(found, a)
		}
	}
	return found
}

// ids returns the ids of an attachment's containers. The list is empty for an attachment
// that was rebuilt from kernel state.
func ids(a hook.Attachment) []string {
	list := make([]string, len(a.Containers))
	for i, c := range a.Containers {
		list[i] = c.ID
	}
	return list
}

// quoteSome quotes the first words, and counts the others.
func quoteSome(words []string) string {
	const most = 5
	more := ""
	if len(words) > most {
		more = fmt.Sprintf(" and %d more", len(words)-most)
		words = words[:most]
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(quoted, ", ") + more
}

// abbreviate shortens an id as podman and docker list it, unless full is set.
func abbreviate(id string, full bool) string {
	if full {
		return id
	}
	return overview.Abbreviate(id)
}
