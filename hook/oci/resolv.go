package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// resolvPath is where name resolution is configured (resolv.conf(5)), inside a
// container.
const resolvPath = "/etc/resolv.conf"

// maxConfig bounds a container's config.json, in bytes.
const maxConfig = 16 << 20

// GiveResolvConf gives a container the name servers of its networks, in the stage
// createContainer: the runtime is in the container's mount namespace then, and
// still sees the host's files. It does nothing where no network has any, or the
// container's engine mounts a resolv.conf of its own. It needs no privilege on
// the host, no broker and no pid: definitions may be read by all.
//
// The image is hostile: a link in it could lead to a file of the host's, or of
// the user's.
func GiveResolvConf(networks string, s *specs.State) error {
	wants, ours, err := wantsOf(s)
	if err != nil || !ours {
		return err
	}
	text, err := resolvConf(networks, wants)
	if err != nil || text == "" {
		return err
	}
	spec, err := readConfig(s.Bundle)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == resolvPath }) {
		return nil
	}
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(s.Bundle, root)
	}
	if err := bindResolvConf(root, s.Bundle, text); err != nil {
		return fmt.Errorf("give container %q its %s: %w", s.ID, resolvPath, err)
	}
	return nil
}

// resolvConf is the file's text, "" where there is nothing to say.
func resolvConf(networks string, wants []hook.Want) (string, error) {
	var servers, search, names []string
	for _, w := range wants {
		def, err := network.Load(networks, w.Network)
		if err != nil {
			return "", err
		}
		names = append(names, def.Name)
		for _, a := range def.DNS {
			servers = append(servers, "nameserver "+a.String()+"\n")
		}
		search = append(search, def.DNSSearch...)
	}
	if len(servers)+len(search) == 0 {
		return "", nil
	}
	text := "# lanyard: " + strings.Join(names, ", ") + "\n"
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	return text + strings.Join(servers, ""), nil
}

func readConfig(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the container's configuration: %w", err)
	}
	defer f.Close()
	var spec specs.Spec
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&spec); err != nil {
		return nil, fmt.Errorf("read the container's configuration %s: %w", f.Name(), err)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return nil, fmt.Errorf("read the container's configuration %s: it has no root", f.Name())
	}
	return &spec, nil
}

// bindResolvConf puts a file of the bundle's over the one in the root, so that
// what is in the image stays as it is.
func bindResolvConf(root, bundle, text string) error {
	source, err := writeBeside(bundle, text)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openTarget(root)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	// By descriptor: nobody can put another file in the place of either.
	from, to := fmt.Sprintf("/proc/self/fd/%d", source.Fd()), fmt.Sprintf("/proc/self/fd/%d", target)
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount it: %w", err)
	}
	return nil
}

// writeBeside writes the text to a file in the bundle, which ends with the
// container.
func writeBeside(bundle, text string) (*os.File, error) {
	path := filepath.Join(bundle, "lanyard-resolv.conf")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	// The mask may have taken away what others in the container need.
	if err := errors.Join(f.Chmod(0o644), second(f.WriteString(text))); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func second(_ int, err error) error { return err }

// within keeps the kernel from leaving the root by a link, and from following
// any of those that are none (/proc/self/root).
const within = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openTarget finds the file to mount over, as the container would, or makes an
// empty one.
func openTarget(root string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open root %q: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, resolvPath, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: within})
	if errors.Is(err, unix.ENOENT) {
		fd, err = makeTarget(dir)
	}
	switch {
	case errors.Is(err, unix.EROFS):
		return 0, errors.New("the image has none, and its root is read-only: put an empty one into the image, or mount one (-v FILE:/etc/resolv.conf)")
	case err != nil:
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return 0, errors.Join(err, errors.New("what the image has there is no file"))
	}
	// The container's own /proc is mounted by now. What runtimes write there on its
	// behalf, such as the label of its processes, must not end in a file of ours.
	var on unix.Statfs_t
	if err := unix.Fstatfs(fd, &on); err != nil || on.Type == unix.PROC_SUPER_MAGIC || on.Type == unix.SYSFS_MAGIC {
		unix.Close(fd)
		return 0, errors.Join(err, errors.New("what the image has there is no file of its own, but the kernel's"))
	}
	return fd, nil
}

// makeTarget makes an empty file, in place of a link that leads nowhere.
func makeTarget(dir int) (int, error) {
	etc, err := unix.Openat2(dir, "/etc", &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: within})
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdirat(dir, "etc", 0o755); err == nil {
			etc, err = unix.Openat2(dir, "/etc", &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: within})
		}
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(etc)
	name := filepath.Base(resolvPath)
	if err := unix.Unlinkat(etc, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, err
	}
	return unix.Openat(etc, name, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
}
