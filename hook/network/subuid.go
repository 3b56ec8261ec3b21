package network

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Subuids is the path of the file of subordinate uids (subuid(5)).
const Subuids = "/etc/subuid"

// subordinates are ranges of uids that are subordinate to users.
type subordinates []struct{ first, end uint64 } // the last uid is end-1

// readSubordinates reads lines of the form "name:first:count", and skips other lines, as
// newuidmap(1) does. A missing file has no ranges.
func readSubordinates(path string) (all subordinates) {
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		fields := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(fields) != 3 {
			continue
		}
		first, ferr := strconv.ParseUint(fields[1], 10, 32)
		count, cerr := strconv.ParseUint(fields[2], 10, 32)
		if ferr == nil && cerr == nil {
			all = append(all, struct{ first, end uint64 }{first, first + count})
		}
	}
	return all
}

func (s subordinates) has(uid uint32) bool {
	for _, r := range s {
		if r.first <= uint64(uid) && uint64(uid) < r.end {
			return true
		}
	}
	return false
}
