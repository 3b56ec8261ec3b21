package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// socketType is SOCK_SEQPACKET in the words of package net.
const socketType = "unixpacket"

// errTooLong is returned for a message that is longer than any should be.
var errTooLong = fmt.Errorf("message is over %d bytes", maxMessage)

// receive reads one message. There is no buffer for control data: descriptors
// that are sent along are dropped by the kernel.
func receive(c *net.UnixConn) ([]byte, error) {
	b := make([]byte, maxMessage)
	n, _, flags, _, err := c.ReadMsgUnix(b, nil)
	switch {
	case err != nil:
		return nil, err
	case flags&unix.MSG_TRUNC != 0:
		return nil, errTooLong
	case n == 0:
		return nil, io.EOF // an empty message looks the same
	}
	return b[:n], nil
}

func send(c *net.UnixConn, message any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(message); err != nil {
		return err
	}
	b := text.Bytes()
	if len(b) > maxMessage {
		return errTooLong
	}
	n, err := c.Write(b)
	if err == nil && n < len(b) {
		err = errors.New("a message was cut short")
	}
	return err
}
