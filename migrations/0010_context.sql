-- What travels with a run besides its arguments. The actor has its column from the beginning; the headers lie beside it, so that a worker that
-- claims one of the run's activities need not read the run's first event.

alter table durable.runs add column headers jsonb;
