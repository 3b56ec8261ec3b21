package bpf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/bpf/pin"
)

// Names of the pins in a trunk's directory. A link's pin is linkPin followed by the name of its
// way.
const (
	endpointsPin = "endpoints"
	sharedPin    = "shared"
	addrsPin     = "addrs"
	hintsPin     = "hints"
	timesPin     = "times"
	historyPin   = "history"
	formerPin    = "former"
	vlansPin     = "vlans"
	devicePin    = "device"
	localsPin    = "locals"
	sentPin      = "sent"
	portPin      = "port"
	emitPin      = "emit"
	linkPin      = "link-"
)

// mapPins are the names of the maps' pins, and of the maps in wire.c.
var mapPins = []string{endpointsPin, sharedPin, addrsPin, hintsPin, timesPin, historyPin, formerPin, vlansPin,
	devicePin, localsPin, sentPin, portPin}

// A trunk is the open pins of one trunk.
type trunk struct {
	ifindex int
	dir     *os.File
	ids     map[string]programID // of the pinned programs, by the name of the way
	maps
}

// maps are the pinned maps of one trunk. Maps that are rarely used are opened on first use.
type maps struct {
	endpoints table[wireMacKey, wireEndpoint]
	shared    table[wireEndpointKey, wireEndpoint]
	addrs     table[wireAddressKey, wireAddress]
	hints     array[wireHint]
	times     array[wireClock]
	history   array[wireHistoryRow]
	former    *ebpf.Map
	locals    *ebpf.Map
	vlans     *ebpf.Map
	vlanRows  []byte // the rows of vlans in memory; nil until histogram needs them
	path      string // of the directory with the pins
}

// openTrunk opens a trunk's pins. It returns nil if there are none.
func openTrunk(r pin.Root, ifindex int) (_ *trunk, err error) {
	t := &trunk{ifindex: ifindex, ids: map[string]programID{}}
	t.path = r.TrunkDir(ifindex, layout)
	t.dir, err = pin.OpenDir(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err = t.openMaps(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (m *maps) openMaps() (err error) {
	if m.endpoints, err = openTable[wireMacKey, wireEndpoint](filepath.Join(m.path, endpointsPin)); err != nil {
		return err
	}
	if m.addrs, err = openTable[wireAddressKey, wireAddress](filepath.Join(m.path, addrsPin)); err != nil {
		return err
	}
	m.hints.path, m.times.path = filepath.Join(m.path, hintsPin), filepath.Join(m.path, timesPin)
	m.history.path = filepath.Join(m.path, historyPin)
	m.vlans, err = openMap(filepath.Join(m.path, vlansPin), ebpf.Array, unsafe.Sizeof(uint32(0)),
		unsafe.Sizeof(wireVlan{}))
	return err
}

func (m *maps) openShared() (err error) {
	if m.shared.Map == nil {
		m.shared, err = openTable[wireEndpointKey, wireEndpoint](filepath.Join(m.path, sharedPin))
	}
	return err
}

func (m *maps) openFormer() (err error) {
	if m.former == nil {
		m.former, err = openMap(filepath.Join(m.path, formerPin), ebpf.LRUHash, unsafe.Sizeof(wireMacKey{}),
			unsafe.Sizeof(wireEnds{}))
	}
	return err
}

func (m *maps) openLocals() (err error) {
	if m.locals == nil {
		m.locals, err = openMap(filepath.Join(m.path, localsPin), ebpf.Hash, unsafe.Sizeof(wireMacKey{}),
			unsafe.Sizeof(uint32(0)))
	}
	return err
}

func (t *trunk) close() {
	for _, c := range []io.Closer{t.dir, t.endpoints, t.shared, t.addrs, t.hints, t.times, t.history, t.former, t.locals,
		t.vlans} {
		c.Close() // nothing is written that could be lost
	}
	if t.vlanRows != nil {
		_ = unix.Munmap(t.vlanRows) // fails only for other arguments
	}
}

// programID is the id of a pinned program, with the inode of its pin.
type programID struct {
	inode uint64
	id    ebpf.ProgramID
}

// programID returns the id of the pinned program of one way. It asks the kernel again only if another
// pin has taken the place of the one that it knows: an upgrade renames one over it.
func (t *trunk) programID(w way) (ebpf.ProgramID, error) {
	path := filepath.Join(t.path, w.name)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("open program %q: %w", path, err)
	}
	if known, ok := t.ids[w.name]; ok && known.inode == st.Ino {
		return known.id, nil
	}
	id, err := pinnedID(path)
	if err == nil {
		t.ids[w.name] = programID{st.Ino, id}
	}
	return id, err
}

// current reports whether the open pins are still those at the path.
func (t *trunk) current() bool { return pin.IsAt(t.dir, t.path) }

// deviceExists reports whether the device that the pins were made for still exists.
func deviceExists(p pin.Dir) (bool, error) {
	path := filepath.Join(p.Path, devicePin)
	m, err := openMap(path, ebpf.DevMap, unsafe.Sizeof(uint32(0)), unsafe.Sizeof(uint32(0)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer m.Close()
	var slot, ifindex uint32
	found, err := lookup(m, &slot, &ifindex, 0)
	if err != nil {
		return false, fmt.Errorf("read map %q: %w", path, err)
	}
	return found && int(ifindex) == p.Ifindex, nil
}
