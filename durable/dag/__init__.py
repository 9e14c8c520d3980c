"""Workflows that are declared: `from durable.dag import Dag, edge, result`. See docs/guide/dags.md."""

from durable.dag.compensating import Decision as Decision
from durable.dag.compensating import give_up as give_up
from durable.dag.compensating import go_on as go_on
from durable.dag.compensating import try_again as try_again
from durable.dag.expressions import Condition as Condition
from durable.dag.expressions import Ref as Ref
from durable.dag.expressions import context as context
from durable.dag.expressions import item as item
from durable.dag.expressions import result as result
from durable.dag.model import Dag as Dag
from durable.dag.model import Guard as Guard
from durable.dag.model import edge as edge
from durable.dag.model import guard as guard
from durable.dag.scheduler import Edge as Edge
from durable.dag_errors import Halt as Halt
