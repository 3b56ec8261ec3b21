package netns

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Find finds the network namespace with that inode and cookie, by the processes in it
// or by a path that it is mounted at. It returns nil if no process and no mount holds it.
// Inode numbers are recycled, so the cookie must match, too (it is 0 on kernels without
// cookies). The caller checks that the boot is the same.
func (h *Host) Find(inode, cookie uint64) (*Namespace, error) {
	return h.search(
		func(ino uint64) bool { return ino == inode },
		func(n *Namespace) (bool, error) { return n.Cookie == cookie, nil },
	)
}

// Each calls visit once for every existing network namespace, except the host's, with an
// inode that wanted accepts. It does not open the other namespaces: opening one costs much
// more than reading its inode. Each namespace is closed after its visit. The first error of
// visit ends Each, which returns it.
func (h *Host) Each(wanted func(inode uint64) bool, visit func(*Namespace) error) error {
	_, err := h.search(wanted, func(n *Namespace) (bool, error) { return false, visit(n) })
	return err
}

// search opens the namespaces with an inode that wanted accepts, until matches returns true.
// It returns that namespace, which the caller closes, or nil. An error means that the
// search is incomplete.
func (h *Host) search(wanted func(inode uint64) bool, matches func(*Namespace) (bool, error)) (*Namespace, error) {
	// Mounts first: they are few, and a namespace that outlives its container mostly
	// has one.
	pinned, err := pinnedNetns()
	if err != nil {
		return nil, fmt.Errorf("list pinned network namespaces: %w", err)
	}
	held, err := processNetns()
	if err != nil {
		return nil, err
	}
	tried := map[uint64]bool{}
	for _, path := range append(pinned, held...) {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || tried[st.Ino] || !wanted(st.Ino) {
			continue
		}
		tried[st.Ino] = true
		n, err := h.open(path)
		if isResourceError(err) {
			return nil, fmt.Errorf("open network namespace %q: %w", path, err)
		}
		if err != nil {
			continue // the host's own, or ended since it was listed
		}
		found, err := matches(n)
		if found {
			return n, nil
		}
		n.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// isResourceError reports whether err means that this process or the host is out of files
// or memory: the lookup failed, but the object may exist.
func isResourceError(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN},
		func(e error) bool { return errors.Is(err, e) })
}

// processNetns returns the path of each process's network namespace. filepath.Glob would
// look up each path four times.
func processNetns() (paths []string, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, name := range names {
		if name[0] >= '0' && name[0] <= '9' {
			paths = append(paths, "/proc/"+name+"/ns/net")
		}
	}
	return paths, nil
}

// pinnedNetns lists the paths in this mount namespace at which a network namespace is
// mounted: their root in mountinfo is "net:[INODE]" (fs/nsfs.c).
func pinnedNetns() (paths []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // an overlay of many layers is one long line
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			paths = append(paths, unescape(fields[4]))
		}
	}
	return paths, lines.Err()
}

// unescape decodes the octal escapes of paths in mountinfo (seq_path: space, tab, newline
// and backslash).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
