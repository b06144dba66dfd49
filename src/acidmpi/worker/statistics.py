"""What a worker tells of itself: one frozen record of local and of common figures."""

from dataclasses import dataclass

from acidmpi.worker.membership import Death


@dataclass(frozen=True, kw_only=True)
class WorkerStatistics:
    """Figures of one rank, and those that all ranks share."""

    gradients: int
    """Gradient events of this rank."""
    exchanges: int
    """Exchanges in which this rank took part."""
    control_messages: int
    """Control messages sent by this rank."""
    control_messages_by_peer: tuple[int, ...]
    """The same for each receiver."""
    bytes_sent: int
    """Parameter bytes sent by this rank."""
    idle_seconds: float
    """Time the compute loop waited for communication."""
    repeated_pairs: float
    """Share of this rank's exchanges with the same peer as the one before."""
    seconds_waiting_peer: float
    """Time of the communication loop outside exchanges."""
    seconds_exchanging: float
    """Time of the communication loop in exchanges."""
    exchanges_by_peer: tuple[int, ...]
    """Exchanges with each rank."""

    comm_rate: float
    """Rate asked for."""
    comm_rate_measured: float
    """Exchanges per rank and unit of time over the whole run."""
    chi_1: float
    chi_2: float
    eta: float
    """Rate of mixing in use last."""
    alpha_tilde: float
    transport: str
    unit_seconds: float | None
    """Unit of time in use last; None when none was ever known."""
    total_gradients: int
    """Gradient events of all ranks, as far as this one knows."""
    total_exchanges: int
    """Exchanges of all ranks at the last heartbeat."""
    train_loss: float
    """Mean of the losses that all ranks reported lately; NaN if there are none."""
    consensus_distance: float
    """mean ‖x_i − x̄‖²: by sketch while running, exact just before the final average."""
    mean_drift: float
    """What exchanges added to the mean of (x + x̃)/2, in units of rms(x); NaN before
    the end."""
    stop_reason: str
    """finished, interrupted or failed."""

    device: str = "cpu"
    """Where the parameters are."""
    device_uuid: str | None = None
    """Tells a GPU from all others."""

    deaths: tuple[Death, ...] = ()
    """Ranks that this one knows to have died, in the order of the news."""
