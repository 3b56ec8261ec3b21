#!/bin/sh
set -e

if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload > /dev/null || true
fi
units="lanyard.socket lanyard-restore.service"
case $1 in
remove)
	for unit in $units; do
		deb-systemd-helper mask $unit > /dev/null 2>&1 || true
	done
	;;
purge)
	for unit in $units; do
		deb-systemd-helper purge $unit > /dev/null 2>&1 || true
		deb-systemd-helper unmask $unit > /dev/null 2>&1 || true
	done
	rm -rf /etc/lanyard
	;;
esac
