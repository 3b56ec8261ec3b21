package main

// growth measures how an attach costs more the more macvlans a trunk has: the
// kernel keeps them in a table of 256 lists, and lists them to whoever asks.
func growth(w *world, _ options, r *results) error {
	const most, window, subject = 1000, 20, "1000 on one trunk"
	c := w.contenders()[0]
	made, err := w.newContainers(most)
	defer endAll(made)
	if err != nil {
		return err
	}
	var took []sample
	for _, one := range made {
		s, err := c.attach(one).run()
		if err != nil {
			return err
		}
		took = append(took, s)
	}
	const early, late = "1st to 20th", "981st to 1000th"
	r.add(subject, early, took[:window])
	r.add(subject, late, took[most-window:])
	r.compare(subject, late, early, 1.2)
	return w.clear(c, made)
}
