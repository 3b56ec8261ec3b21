#!/bin/sh
# As dh_installsystemd writes it. Containers keep running while the service restarts.
set -e

case $1 in
configure | abort-upgrade | abort-deconfigure | abort-remove) ;;
*) exit 0 ;;
esac
for unit in lanyard.socket lanyard-restore.service; do
	deb-systemd-helper unmask $unit > /dev/null || true
	if deb-systemd-helper --quiet was-enabled $unit; then
		deb-systemd-helper enable $unit > /dev/null || true
	else
		deb-systemd-helper update-state $unit > /dev/null || true
	fi
done
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload > /dev/null || true
	deb-systemd-invoke start lanyard.socket > /dev/null || true
	[ -z "$2" ] || deb-systemd-invoke try-restart lanyard.service > /dev/null || true
	# 05-lanyard*.network; only systemd-networkd knows the command.
	! systemctl --quiet is-active systemd-networkd.service || networkctl reload > /dev/null || true
fi
