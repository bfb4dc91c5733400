"""The same round in Flower: its FedAvg strategy, its message API, clients that add noise."""

import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Parameters plus noise, weighted like any other update."""
    arrays = message.content["arrays"]
    noise = np.random.default_rng()
    learned = {
        name: Array(array.numpy() + noise.standard_normal(array.shape, dtype=np.float32))
        for name, array in arrays.items()
    }
    content = {"arrays": ArrayRecord(learned), "metrics": MetricRecord({"num-examples": 100})}
    return Message(content=RecordDict(content), reply_to=message)


class Timed(FedAvg):
    """FedAvg that says when a round is over."""

    def aggregate_train(self, server_round, replies):
        """As FedAvg does, then a line with the round and the time."""
        result = super().aggregate_train(server_round, replies)
        with open(os.environ["ROUND_LOG"], "a") as log:
            log.write(f"{time.time()} round {server_round}\n")
        return result


@server.main()
def main(grid: Grid, context: Context) -> None:
    """So many rounds over all ends."""
    config = context.run_config
    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=config["ends"],
        min_available_nodes=config["ends"],
    )
    start = ArrayRecord({"weight": Array(np.zeros(config["params"], dtype=np.float32))})
    strategy.start(grid=grid, initial_arrays=start, num_rounds=config["rounds"])
    with open(os.environ["ROUND_LOG"], "a") as log:
        log.write(f"{time.time()} over\n")
