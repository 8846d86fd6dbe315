"""What templates may call: functions, the processes and distributions behind them, and their random numbers."""
