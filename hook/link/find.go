package link

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// FindNetns finds a namespace that was seen before: by the processes in it, or
// by a path that it is pinned at. It is nil where nobody holds it any more.
// Inode numbers are recycled, so where the kernel has cookies the cookie must
// match as well; an inode of 0 leaves it to the cookie alone. The caller checks
// that the boot is the same.
func (h *Host) FindNetns(inode, cookie uint64) (*Netns, error) {
	if inode == 0 && cookie == 0 {
		return nil, fmt.Errorf("find a network namespace: neither inode nor cookie is known")
	}
	tried := map[uint64]bool{}
	try := func(path string) *Netns {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || tried[st.Ino] || inode != 0 && st.Ino != inode {
			return nil
		}
		tried[st.Ino] = true
		n, err := h.openNetns(path)
		if err != nil {
			return nil // the host's own, or gone since
		}
		if n.Cookie != cookie {
			n.Close()
			return nil
		}
		return n
	}
	held, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	pinned, err := pinnedNetns()
	if err != nil {
		return nil, err
	}
	for _, path := range append(held, pinned...) {
		if n := try(path); n != nil {
			return n, nil
		}
	}
	return nil, nil
}

// pinnedNetns lists the paths in this mount namespace that a network namespace
// is bound to: their root in mountinfo is "net:[INODE]" (fs/nsfs.c).
func pinnedNetns() (paths []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			paths = append(paths, unescape(fields[4]))
		}
	}
	return paths, lines.Err()
}

// unescape undoes what the kernel does to paths in mountinfo (seq_path: space,
// tab, newline and backslash as octal).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
