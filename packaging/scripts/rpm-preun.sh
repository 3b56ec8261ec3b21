if [ "$1" = 0 ]; then
	systemctl --no-reload disable --now lanyard.socket lanyard-restore.service lanyard.service > /dev/null 2>&1 || :
fi
