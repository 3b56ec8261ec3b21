package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Names in the initramfs.
const (
	jobFile    = "job.json"
	moduleList = "modules.json"
	moduleDir  = "modules"
)

// buildInitramfs returns the first root filesystem as an archive: this program as init, the modules
// that the second root needs, and the job. Each run builds it again: that costs milliseconds, and
// it contains the job.
func buildInitramfs(k Kernel, job Job) ([]byte, error) {
	order, err := loadOrder(k.Modules, bootModules)
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	var c cpio
	c.dir("dev")
	c.node("dev/console", 5, 1) // init's output, before devtmpfs is mounted
	c.dir("proc")
	c.dir("lower")
	c.dir("base")
	c.dir("memory")
	c.dir("root")
	c.dir(moduleDir)
	c.file("init", 0o755, self)
	var names []string
	for _, m := range order {
		data, err := readModule(filepath.Join(k.Modules, m.Path))
		if err != nil {
			return nil, err
		}
		c.file(moduleDir+"/"+m.Name, 0o644, data)
		names = append(names, m.Name)
	}
	if err := c.json(moduleList, names); err != nil {
		return nil, err
	}
	if err := c.json(jobFile, job); err != nil {
		return nil, err
	}
	return c.end(), nil
}

// cpio writes an archive in the "newc" format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	buf   bytes.Buffer
	inode int
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

func (c *cpio) dir(name string)                         { c.entry(name, modeDir|0o755, nil, 0, 0) }
func (c *cpio) file(name string, perm int, data []byte) { c.entry(name, modeFile|perm, data, 0, 0) }
func (c *cpio) node(name string, major, minor int)      { c.entry(name, modeChar|0o600, nil, major, minor) }
func (c *cpio) json(name string, v any) error {
	data, err := json.Marshal(v)
	c.file(name, 0o644, data)
	return err
}

func (c *cpio) entry(name string, mode int, data []byte, major, minor int) {
	c.inode++
	const uid, gid, links, mtime, devMajor, devMinor, check = 0, 0, 1, 0, 0, 0, 0
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, uid, gid, links, mtime, len(data), devMajor, devMinor, major, minor, len(name)+1, check)
	c.buf.WriteString(name + "\x00")
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

func (c *cpio) end() []byte {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.buf.Bytes()
}
