package network

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Subuids is the file of subordinate uids (subuid(5)).
const Subuids = "/etc/subuid"

// subordinates are ranges of uids that belong to users of other uids.
type subordinates []struct{ first, end uint64 } // from first up to, and not with, end

// readSubordinates reads lines of "name:first:count", and passes over what is none,
// as newuidmap(1) does.
func readSubordinates(path string) (all subordinates) {
	text, _ := os.ReadFile(path) // where there is none, there are none
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
