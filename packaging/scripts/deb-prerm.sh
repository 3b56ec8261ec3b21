#!/bin/sh
set -e

if [ "$1" = remove ]; then
	if [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop lanyard.socket lanyard.service > /dev/null || true
	fi
	if [ -n "$(lanyard ps --quiet 2> /dev/null)" ]; then
		echo "lanyard: containers that run stay on the LAN; without the package their addresses are not released" >&2
	fi
fi
